# Each tests/e2e/NN-topic.bats is one test. A line "# labels: short crash" in it
# adds labels: short ones also run under the sanitizers, long ones only with
# tests/run --full. A line "# timeout: 900" gives it more than ten minutes. One
# "# shapes: own node" has it run a second time, as e2e-node/NN-topic, on the store
# of a node, over TCP. One "# long: tsan node" makes it a long one under that sanitizer,
# and on a node ("node-tsan": only both): all together would take longer than anybody waits.
# One runs at a time, beside other tests; with a line "# alone" by itself: it has
# deadlines that leave no room for others.
include(e2e/programs.cmake)

set(sanitizer none)
if(CMAKE_C_FLAGS MATCHES "-fsanitize=address")
	set(sanitizer asan)
elseif(CMAKE_C_FLAGS MATCHES "-fsanitize=thread")
	set(sanitizer tsan)
endif()

file(GLOB topics CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/e2e/*.bats)
foreach(topic ${topics})
	if(NOT TARGET slicefs)
		break()
	endif()
	get_filename_component(name ${topic} NAME_WE)
	file(STRINGS ${topic} labels REGEX "^# labels:")
	string(REGEX REPLACE "^# labels:" "" labels "${labels}")
	separate_arguments(labels UNIX_COMMAND "${labels}")
	file(STRINGS ${topic} timeout REGEX "^# timeout: [0-9]+")
	string(REGEX MATCH "[0-9]+" timeout "${timeout}")
	if(NOT timeout)
		set(timeout 600)
	endif()
	file(STRINGS ${topic} seldom REGEX "^# long:")
	string(REGEX REPLACE "^# long:" "" seldom "${seldom}")
	separate_arguments(seldom UNIX_COMMAND "${seldom}")
	file(STRINGS ${topic} alone REGEX "^# alone")
	set(room MOUNTS)
	if(alone)
		set(room ALONE)
	endif()
	set(limit ${timeout})
	if(sanitized)
		math(EXPR limit "${timeout} * 3")
	endif()
	# run-bats stops in time to clean up; ctest's own limit comes later.
	math(EXPR timeout "${timeout} + 60")
	set(shapes "")
	file(STRINGS ${topic} shape REGEX "^# shapes: own node")
	# Under the sanitizers two of them will do: all are slow there.
	if(shape AND (NOT sanitized OR name MATCHES "03-files|21-publish"))
		set(shapes node)
	endif()
	foreach(shape own ${shapes})
		set(test e2e/${name})
		if(shape STREQUAL node)
			set(test e2e-node/${name})
		endif()
		set(more "")
		foreach(word ${seldom})
			if(word STREQUAL sanitizer OR word STREQUAL shape OR
			   word STREQUAL "${shape}-${sanitizer}")
				set(more long)
			endif()
		endforeach()
		slicefs_test(NAME ${test} LABELS e2e ${labels} ${more} TIMEOUT ${timeout} ${room}
			COMMAND env SHAPE=${shape} bash ${CMAKE_CURRENT_SOURCE_DIR}/e2e/run-bats
				$<TARGET_FILE:slicefs> ${CMAKE_CURRENT_BINARY_DIR} ${topic} ${limit})
	endforeach()
	# Labels are read when cmake runs, so it runs again when they may differ.
	set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${topic})
endforeach()
