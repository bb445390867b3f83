# The virtual machine with RDMA devices: README.md in the folder. These tests run in
# the release tree only; CANNOT RUN (no QEMU, no kernel) is counted as skipped.
slicefs_test(NAME vm/runner LABELS vm TIMEOUT 600 COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/vm/test-runner)
