# libgeul-cuda.so: the CUDA backend as a module, which the library opens at run time where it lies. Target geul-cuda,
# which is not part of `all` (minutes; `make cuda`). CMake's own CUDA language is left out: it wants to link a program
# first, and knows new compilers late.
#
# Kernels are compiled by nvcc, one command per file, which makes code for every architecture; the rest is C. Linked as
# C, with CUDA's runtime inside, so that the module needs libc only and starts on machines without a driver. Of libgeul it
# has its own copy of the objects that it needs, which nobody else sees.
set(GEUL_CUDA AUTO CACHE STRING "libgeul-cuda.so: ON, OFF, or AUTO (where there is an nvcc)")
set_property(CACHE GEUL_CUDA PROPERTY STRINGS AUTO ON OFF)
# Turing 75; 30xx 86, A100 80; 40xx 89; H100, H200 90; B200 100; 50xx 120. The last comes as PTX too, for later cards.
set(GEUL_CUDA_ARCHITECTURES 75 80 86 89 90 100 120 CACHE STRING "Compute capabilities that libgeul-cuda.so has code for")
set(cuda_oldest 12.8) # the first that knows 120

# without_cuda(REASON): goes on without the module, with a target that says why; an error where it was asked for.
macro(without_cuda reason)
    if(GEUL_CUDA STREQUAL "ON")
        message(FATAL_ERROR "GEUL_CUDA=ON: ${reason}")
    endif()
    message(STATUS "Without libgeul-cuda.so: ${reason}")
    add_custom_target(geul-cuda COMMAND ${CMAKE_COMMAND} -E echo "Without libgeul-cuda.so: ${reason}" VERBATIM)
    return()
endmacro()

if(GEUL_CUDA STREQUAL "OFF")
    without_cuda("GEUL_CUDA=OFF")
endif()
find_program(GEUL_NVCC nvcc HINTS ENV CUDA_PATH ENV CUDA_HOME PATHS /usr/local/cuda/bin /opt/cuda/bin PATH_SUFFIXES bin)
if(NOT GEUL_NVCC)
    without_cuda("there is no nvcc (CUDA ${cuda_oldest} or later; GEUL_NVCC names another place)")
elseif(NOT CMAKE_CXX_COMPILER)
    without_cuda("nvcc needs a C++ compiler (apt-get install g++)")
elseif(GEUL_SANITIZE)
    without_cuda("it is not built with sanitizers")
endif()
execute_process(COMMAND ${GEUL_NVCC} --version OUTPUT_VARIABLE nvcc_version ERROR_QUIET)
string(REGEX REPLACE ".*release ([0-9]+\\.[0-9]+).*" "\\1" nvcc_version "${nvcc_version}")
if(NOT nvcc_version MATCHES "^[0-9.]+$" OR nvcc_version VERSION_LESS cuda_oldest)
    without_cuda("${GEUL_NVCC} is of CUDA ${nvcc_version}, not ${cuda_oldest} or later")
endif()
get_filename_component(cuda_root ${GEUL_NVCC} REALPATH)
get_filename_component(cuda_root ${cuda_root}/../.. ABSOLUTE)
find_library(GEUL_CUDART cudart_static HINTS ${cuda_root}/lib64 ${cuda_root}/targets/x86_64-linux/lib
             ${cuda_root}/targets/sbsa-linux/lib ${cuda_root}/lib)
if(NOT GEUL_CUDART)
    without_cuda("there is no libcudart_static.a beside ${GEUL_NVCC}")
endif()
message(STATUS "libgeul-cuda.so: ${GEUL_NVCC}, CUDA ${nvcc_version}")

# The code of seven architectures is much alike: packed it is a fifth as large. -fmad=false: a product and a sum are two
# roundings unless a kernel says fmaf() itself, as in C, so that every instance of a kernel rounds alike.
set(nvcc_flags -std=c++17 -O3 -fmad=false -ccbin ${CMAKE_CXX_COMPILER} -t 2 --compress-mode=size -I${PROJECT_SOURCE_DIR}
    -I${PROJECT_SOURCE_DIR}/include -Xcompiler -fPIC,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics)
foreach(architecture IN LISTS GEUL_CUDA_ARCHITECTURES)
    list(APPEND nvcc_flags -gencode arch=compute_${architecture},code=sm_${architecture})
endforeach()
list(GET GEUL_CUDA_ARCHITECTURES -1 architecture)
list(APPEND nvcc_flags -gencode arch=compute_${architecture},code=compute_${architecture})
if(GEUL_WERROR)
    list(APPEND nvcc_flags -Werror all-warnings)
endif()

file(GLOB cuda_kernels CONFIGURE_DEPENDS backends/cuda/*.cu)
set(cuda_objects)
set(nvcc ${GEUL_NVCC})
if(CCACHE)
    set(nvcc ${CCACHE} ${GEUL_NVCC})
endif()
foreach(kernel IN LISTS cuda_kernels)
    get_filename_component(name ${kernel} NAME)
    set(object ${PROJECT_BINARY_DIR}/cuda/${name}.o)
    add_custom_command(OUTPUT ${object}
                       COMMAND ${CMAKE_COMMAND} -E make_directory ${PROJECT_BINARY_DIR}/cuda
                       COMMAND ${nvcc} ${nvcc_flags} -MD -MF ${object}.d -c ${kernel} -o ${object}
                       DEPENDS ${kernel} DEPFILE ${object}.d COMMENT "nvcc ${name}" VERBATIM)
    list(APPEND cuda_objects ${object})
endforeach()

sources_of(cuda_sources libgeul-cuda)
set(cuda_map ${PROJECT_SOURCE_DIR}/tools/geul-cuda.map)
add_library(geul-cuda MODULE EXCLUDE_FROM_ALL ${cuda_sources} ${cuda_objects})
set_target_properties(geul-cuda PROPERTIES OUTPUT_NAME geul-cuda LINKER_LANGUAGE C C_VISIBILITY_PRESET default
                                           LINK_DEPENDS ${cuda_map})
target_compile_definitions(geul-cuda PRIVATE GEUL_VERSION="${PROJECT_VERSION}")
target_link_options(geul-cuda PRIVATE -Wl,--version-script=${cuda_map} -Wl,-Bsymbolic -Wl,-z,defs -Wl,--gc-sections)
target_link_libraries(geul-cuda PRIVATE $<TARGET_FILE:libgeul_static> ${GEUL_CUDART} dl pthread rt m)
add_dependencies(geul-cuda libgeul_static)
install(FILES $<TARGET_FILE:geul-cuda> DESTINATION ${CMAKE_INSTALL_LIBDIR} OPTIONAL)
