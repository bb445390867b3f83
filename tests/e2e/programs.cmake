# Programs that the bats files run; they are found beside the test binaries.
foreach(program twin posix ledger modes cycles races bigdir latemap hold walk engines)
	add_executable(${program} e2e/${program}.c)
	target_link_libraries(${program} PRIVATE warnings)
	target_include_directories(${program} PRIVATE ${PROJECT_SOURCE_DIR})
	# They are users of the mount, and one hands the kernel bad pointers: no
	# sanitizer looks at them.
	target_compile_options(${program} PRIVATE -fno-sanitize=all)
	target_link_options(${program} PRIVATE -fno-sanitize=all)
endforeach()
