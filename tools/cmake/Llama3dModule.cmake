# One library a module. A module sees only the modules it links, and what those link.
#
#   llama3d_module(NAME SOURCES file... [LINKS target...] [PRIVATE_LINKS target...])

function(llama3d_set_warnings target)
  set(flags -Wall -Wextra $<$<BOOL:${LLAMA3D_WARNINGS_AS_ERRORS}>:-Werror>)
  target_compile_options(${target} PRIVATE
    "$<$<COMPILE_LANGUAGE:CXX>:${flags}>"
    "$<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${LLAMA3D_WARNINGS_AS_ERRORS}>>:--Werror=all-warnings>")
endfunction()

function(llama3d_module name)
  cmake_parse_arguments(MODULE "" "" "SOURCES;LINKS;PRIVATE_LINKS" ${ARGN})
  set(target llama3d_${name})
  add_library(${target} STATIC ${MODULE_SOURCES})
  add_library(llama3d::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/llama3d>)
  target_link_libraries(${target} PUBLIC ${MODULE_LINKS} PRIVATE ${MODULE_PRIVATE_LINKS})
  llama3d_set_warnings(${target})
  set_property(GLOBAL APPEND PROPERTY LLAMA3D_MODULES ${target})
endfunction()
