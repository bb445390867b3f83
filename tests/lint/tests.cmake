# Each tests/lint/*.sh is a test: it prints what is wrong, and where.
file(GLOB lints CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/lint/*.sh)
foreach(script ${lints})
	get_filename_component(name ${script} NAME_WE)
	slicefs_test(NAME lint/${name} LABELS lint TIMEOUT 300 COMMAND sh ${script})
endforeach()
