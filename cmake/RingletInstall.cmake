# Installed: the libraries with their headers, and what find_package(ringlet) needs to find the rest.
include(CMakePackageConfigHelpers)
set(RINGLET_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/ringlet)
install(TARGETS ringlet ${RINGLET_LAYER_TARGETS} EXPORT ringletTargets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/ringlet/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/ringlet
        FILES_MATCHING PATTERN "*.h" PATTERN "precompiled.h" EXCLUDE)
install(FILES ${PROJECT_BINARY_DIR}/generated/ringlet/core/version.h
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/ringlet/core)
install(EXPORT ringletTargets NAMESPACE ringlet:: DESTINATION ${RINGLET_CMAKE_DIR})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/ringletConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/generated/ringletConfig.cmake
                              INSTALL_DESTINATION ${RINGLET_CMAKE_DIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/generated/ringletConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/generated/ringletConfig.cmake
              ${PROJECT_BINARY_DIR}/generated/ringletConfigVersion.cmake
              ${PROJECT_SOURCE_DIR}/cmake/FindLibTorch.cmake
              ${PROJECT_SOURCE_DIR}/cmake/FindOpenCVImage.cmake
              ${PROJECT_SOURCE_DIR}/cmake/FindSentencePiece.cmake
              ${PROJECT_SOURCE_DIR}/cmake/FindTomlPlusPlus.cmake
        DESTINATION ${RINGLET_CMAKE_DIR})
