# cmake --install: the program, the modules as libraries, and a package for find_package(llama3d).
include(CMakePackageConfigHelpers)

get_property(modules GLOBAL PROPERTY LLAMA3D_MODULES)
install(TARGETS ${modules} EXPORT llama3dTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
foreach(folder mpi io)
  install(DIRECTORY ${folder} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/llama3d FILES_MATCHING PATTERN "*.hpp")
endforeach()
install(DIRECTORY src/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/llama3d FILES_MATCHING PATTERN "*.hpp")
install(EXPORT llama3dTargets NAMESPACE llama3d:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/llama3d)

configure_package_config_file(tools/cmake/llama3dConfig.cmake.in ${PROJECT_BINARY_DIR}/llama3dConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/llama3d)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/llama3dConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES tools/cmake/Llama3dHdf5.cmake tools/cmake/FindNCCL.cmake ${PROJECT_BINARY_DIR}/llama3dConfig.cmake
  ${PROJECT_BINARY_DIR}/llama3dConfigVersion.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/llama3d)
