# The virtual machine with RDMA devices: README.md in the folder. These tests run in
# the release tree only; CANNOT RUN (a package or the kernel is missing) is counted
# as skipped. Each machine has two processors.
pkg_check_modules(VERBS IMPORTED_TARGET libibverbs librdmacm)
set(probe verbs_probe-is-missing)
if(VERBS_FOUND)
	add_executable(verbs_probe vm/verbs_probe.c)
	target_link_libraries(verbs_probe PRIVATE warnings PkgConfig::VERBS)
	set(probe $<TARGET_FILE:verbs_probe>)
endif()
slicefs_test(NAME vm/runner LABELS vm TIMEOUT 600 PROCESSORS 2
	COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/vm/test-runner)
slicefs_test(NAME vm/verbs LABELS vm TIMEOUT 600 PROCESSORS 2
	COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/vm/test-verbs ${probe})
