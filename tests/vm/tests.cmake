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
set(doors test_doors-is-missing)
set(messages test_messages-is-missing)
if(VERBS_FOUND)
	foreach(name rdma doors messages)
		add_executable(test_${name} vm/test_${name}.c)
		target_link_libraries(test_${name} PRIVATE engine index common warnings PkgConfig::CMOCKA)
		set(${name} $<TARGET_FILE:test_${name}>)
	endforeach()
endif()
slicefs_test(NAME vm/doors LABELS vm TIMEOUT 600 PROCESSORS 2
	COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/vm/test-rdma ${doors})
slicefs_test(NAME vm/xfer LABELS vm TIMEOUT 600 PROCESSORS 2
	COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/vm/test-rdma $<TARGET_FILE:test_xfer> rdma)
slicefs_test(NAME vm/mount LABELS vm TIMEOUT 600 PROCESSORS 2
	COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/vm/test-mount $<TARGET_FILE:slicefs>)
slicefs_test(NAME vm/ports LABELS vm TIMEOUT 600 PROCESSORS 2
	COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/vm/test-mount $<TARGET_FILE:slicefs> two_ports)
slicefs_test(NAME vm/disk LABELS vm TIMEOUT 600 PROCESSORS 2
	COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/vm/test-mount $<TARGET_FILE:slicefs> a_disk_below)
# End-to-end tests by RDMA. Their limit of time is for what hangs. Then 256 MiB of real files.
set(limit 3600)
math(EXPR timeout "${limit} + 120")
foreach(name 43-nodes 51-ssd 54-scrub 55-keep)
	slicefs_test(NAME vm/e2e-${name} LABELS vm long TIMEOUT ${timeout} PROCESSORS 2
		COMMAND env LIMIT=${limit} bash ${CMAKE_CURRENT_SOURCE_DIR}/vm/test-e2e
			$<TARGET_FILE:slicefs> ${CMAKE_CURRENT_BINARY_DIR} ${name})
endforeach()
slicefs_test(NAME vm/large LABELS vm long TIMEOUT 600 PROCESSORS 2
	COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/vm/test-mount $<TARGET_FILE:slicefs> large)
set(labels vm)
if(sanitized)
	set(labels vm short)
endif()
foreach(name rdma messages)
	slicefs_test(NAME vm/${name} LABELS ${labels} TIMEOUT 900 PROCESSORS 2
		COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/vm/test-rdma ${${name}})
endforeach()
