# Each tests/model/*.pml is explored by spin, then without each of its guards.
file(GLOB models CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/model/*.pml)
foreach(model ${models})
	get_filename_component(name ${model} NAME_WE)
	slicefs_test(NAME model/${name} LABELS model TIMEOUT 900
		COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/model/run ${name})
endforeach()
