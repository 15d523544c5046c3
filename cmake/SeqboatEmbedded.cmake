# libseqboat, for programs that run models and train none: everything without LibTorch that the runtime needs, with C functions (include/seqboat.h) and
# its C++ classes, in one shared library that asks for nothing but the C++ library, and in one static archive.
# What reads, checks and writes files and configs runs once, and is made of templates: for size, not for speed.
file(GLOB readers ${PROJECT_SOURCE_DIR}/src/config/*.cc)
list(APPEND readers ${PROJECT_SOURCE_DIR}/src/base/safetensors.cc ${PROJECT_SOURCE_DIR}/src/capi/capi.cc)
foreach(name model quantize state_file tensors)
  list(APPEND readers ${PROJECT_SOURCE_DIR}/src/runtime/${name}.cc)
endforeach()
set_source_files_properties(${readers} PROPERTIES COMPILE_OPTIONS $<$<CONFIG:Release>:-Os>)

add_library(seqboat_capi STATIC ${PROJECT_SOURCE_DIR}/src/capi/capi.cc)
add_library(seqboat::capi ALIAS seqboat_capi)
target_link_libraries(seqboat_capi PUBLIC seqboat::runtime PRIVATE seqboat_options)
target_compile_options(seqboat_capi PRIVATE -ffunction-sections -fdata-sections)
target_compile_definitions(seqboat_capi PRIVATE SEQBOAT_VERSION="${PROJECT_VERSION}")

# Whole are the two that others call into; of the rest comes what these need, no kernel of training.
add_library(seqboat_shared SHARED $<TARGET_OBJECTS:seqboat_capi> $<TARGET_OBJECTS:seqboat_runtime>)
add_library(seqboat::seqboat ALIAS seqboat_shared)
set_target_properties(seqboat_shared PROPERTIES OUTPUT_NAME seqboat EXPORT_NAME seqboat LINKER_LANGUAGE CXX VERSION ${PROJECT_VERSION}
                      SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR} LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/libseqboat.map)
target_include_directories(seqboat_shared INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>)
target_link_libraries(seqboat_shared PRIVATE seqboat::config seqboat::data seqboat::kernels seqboat::trace seqboat_options)
target_link_options(seqboat_shared PRIVATE -Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/libseqboat.map -Wl,--gc-sections -Wl,--as-needed
                                           -Wl,-O1)
if(NOT SEQBOAT_SANITIZE)
  target_link_options(seqboat_shared PRIVATE -Wl,--no-undefined)
endif()

# A linker takes of an archive what a program needs, object by object.
add_library(seqboat_static STATIC)
foreach(lib base trace kernels data config runtime capi)
  target_sources(seqboat_static PRIVATE $<TARGET_OBJECTS:seqboat_${lib}>)
endforeach()
set_target_properties(seqboat_static PROPERTIES OUTPUT_NAME seqboat EXPORT_NAME seqboat_static LINKER_LANGUAGE CXX)
target_include_directories(seqboat_static INTERFACE $<INSTALL_INTERFACE:include>)
target_link_libraries(seqboat_static INTERFACE $<INSTALL_INTERFACE:stdc++> $<INSTALL_INTERFACE:m> $<INSTALL_INTERFACE:pthread>)

# In an export set of their own: who finds them is asked for no other package.
install(TARGETS seqboat_shared seqboat_static EXPORT seqboatEmbeddedTargets COMPONENT embedded
        LIBRARY DESTINATION lib COMPONENT embedded NAMELINK_COMPONENT embedded ARCHIVE DESTINATION lib COMPONENT embedded)
install(EXPORT seqboatEmbeddedTargets NAMESPACE seqboat:: DESTINATION lib/cmake/seqboat COMPONENT embedded)
install(FILES ${PROJECT_SOURCE_DIR}/include/seqboat.h DESTINATION include COMPONENT embedded)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/seqboat/runtime DESTINATION include/seqboat COMPONENT embedded)
foreach(header base/error.h base/safetensors.h config/input_format.h config/model_config.h)  # which those include
  get_filename_component(folder ${header} DIRECTORY)
  install(FILES ${PROJECT_SOURCE_DIR}/include/seqboat/${header} DESTINATION include/seqboat/${folder} COMPONENT embedded)
endforeach()
configure_file(${PROJECT_SOURCE_DIR}/cmake/seqboat.pc.in ${PROJECT_BINARY_DIR}/seqboat.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/seqboat.pc DESTINATION lib/pkgconfig COMPONENT embedded)
