# Each tests/model/*.pml is explored by spin, then without each of its guards; one
# that has a larger bound has a long test for it.
file(GLOB models CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/model/*.pml)
foreach(model ${models})
	get_filename_component(name ${model} NAME_WE)
	slicefs_test(NAME model/${name} LABELS model TIMEOUT 900
		COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/model/run ${name})
	file(STRINGS ${model} larger REGEX "-DFULL=1" LIMIT_COUNT 1)
	if(larger)
		slicefs_test(NAME model/${name}-full LABELS model long TIMEOUT 900
			COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/model/run ${name} --full)
	endif()
endforeach()
