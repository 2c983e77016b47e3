# Finds the header-only toml++. Debian's own CMake file asks for its shared library instead, which would
# be one more file to ship for what is one header here.
#
#   TomlPlusPlus_FOUND, target TomlPlusPlus::TomlPlusPlus

find_path(TomlPlusPlus_INCLUDE_DIR toml++/toml.h)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TomlPlusPlus REQUIRED_VARS TomlPlusPlus_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "Install libtomlplusplus-dev.")

if(TomlPlusPlus_FOUND AND NOT TARGET TomlPlusPlus::TomlPlusPlus)
  add_library(TomlPlusPlus::TomlPlusPlus INTERFACE IMPORTED GLOBAL)
  target_include_directories(TomlPlusPlus::TomlPlusPlus SYSTEM INTERFACE "${TomlPlusPlus_INCLUDE_DIR}")
endif()
mark_as_advanced(TomlPlusPlus_INCLUDE_DIR)
