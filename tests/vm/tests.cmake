# The virtual machine with RDMA devices: README.md in the folder. The tests of the
# machine itself run in the release tree only. CANNOT RUN (a package or the kernel is missing) is counted
# as skipped. Each machine has two processors.
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
# Also with sanitizers, which the emulated machine can bear.
set(rdma test_rdma-is-missing)
if(VERBS_FOUND)
	add_executable(test_rdma vm/test_rdma.c)
	target_link_libraries(test_rdma PRIVATE engine index common warnings PkgConfig::CMOCKA)
	set(rdma $<TARGET_FILE:test_rdma>)
endif()
slicefs_test(NAME vm/xfer LABELS vm TIMEOUT 600 PROCESSORS 2
	COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/vm/test-rdma $<TARGET_FILE:test_xfer> rdma)
slicefs_test(NAME vm/mount LABELS vm TIMEOUT 600 PROCESSORS 2
	COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/vm/test-mount $<TARGET_FILE:slicefs>)
set(labels vm)
if(sanitized)
	set(labels vm short)
endif()
slicefs_test(NAME vm/rdma LABELS ${labels} TIMEOUT 900 PROCESSORS 2
	COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/vm/test-rdma ${rdma})
