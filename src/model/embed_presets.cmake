# cmake "-DFILES=FOLDER/NAME.json;..." -DOUTPUT=presets_embedded.cpp -P embed_presets.cmake
# Writes a C++ source that holds every FOLDER/NAME.json as the preset NAME.
list(SORT FILES COMPARE NATURAL)
set(entries "")
foreach(file IN LISTS FILES)
  get_filename_component(name "${file}" NAME)
  string(REGEX REPLACE "\\.json$" "" name "${name}")
  file(READ "${file}" text)
  string(APPEND entries "    {\"${name}\", R\"json(${text})json\"},\n")
endforeach()
file(WRITE ${OUTPUT}
"// Made from jobs/presets/*.json at build time; edit those.
#include \"model/presets.hpp\"

namespace llama3d {

std::span<const Preset> embedded_presets() {
  static constexpr Preset presets[] = {
${entries}  };
  return presets;
}

}  // namespace llama3d
")
