# Programs that the bats files run; they are found beside the test binaries.
foreach(program twin posix ledger modes cycles bigdir latemap hold)
	add_executable(${program} e2e/${program}.c)
	target_link_libraries(${program} PRIVATE warnings)
endforeach()
