#include "train/golden_file.hpp"

#include <hdf5.h>

#include "io/hdf5/hdf5.hpp"

namespace llama3d::test {
namespace {

struct Values {
  std::vector<hsize_t> extent;
  std::vector<double> values;
};

Values read(hid_t file, const std::string& name) {
  const auto dataset = io::open_dataset(file, name);
  Values v{io::extent_of(dataset.get()), {}};
  std::size_t count = 1;
  for (const auto n : v.extent) count *= n;
  v.values.resize(count);
  io::check_hdf5(H5Dread(dataset.get(), H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, v.values.data()),
                 name);
  return v;
}

std::vector<std::int32_t> integers(const Values& v) {
  return {v.values.begin(), v.values.end()};
}

herr_t collect(hid_t, const char* name, const H5L_info_t*, void* names) {
  static_cast<std::vector<std::string>*>(names)->push_back(name);
  return 0;
}

}  // namespace

std::string golden_directory() {
  return LLAMA3D_GOLDEN_DIR;
}

GoldenFile::GoldenFile(const std::string& name) : path_(golden_directory() + "/" + name) {
  io::initialize_hdf5();
  file_ = io::open_file(path_).detach();
}

GoldenFile::~GoldenFile() {
  H5Fclose(file_);
}

ModelConfig GoldenFile::config() const {
  // h5py writes text as a variable-length string.
  const auto attribute = io::own_hdf5<io::Hdf5Attribute>(H5Aopen(file_, "config", H5P_DEFAULT), "config");
  const auto type = io::own_hdf5<io::Hdf5Type>(H5Aget_type(attribute.get()), "type of config");
  char* text = nullptr;
  io::check_hdf5(H5Aread(attribute.get(), type.get(), &text), "config");
  const std::string json = text;
  H5free_memory(text);
  return parse_model_config(json, path_);
}

double GoldenFile::attribute(const std::string& name) const {
  const auto attribute = io::own_hdf5<io::Hdf5Attribute>(H5Aopen(file_, name.c_str(), H5P_DEFAULT), name);
  double value = 0;
  io::check_hdf5(H5Aread(attribute.get(), H5T_NATIVE_DOUBLE, &value), name);
  return value;
}

GlobalBatch GoldenFile::batch(const std::string& group) const {
  const Values ids = read(file_, "/input_ids");
  GlobalBatch b{static_cast<std::int64_t>(ids.extent[0]),
                static_cast<std::int64_t>(ids.extent[1]),
                integers(ids),
                integers(read(file_, "/labels")),
                {},
                {},
                {}};
  if (!group.empty()) {
    b.document_start = integers(read(file_, "/" + group + "/document_start"));
    b.document_end = integers(read(file_, "/" + group + "/document_end"));
    b.position = integers(read(file_, "/" + group + "/position"));
  }
  return b;
}

GlobalBatch GoldenFile::step_batch(int step) const {
  const Values tokens = read(file_, "/tokens");
  const auto samples = tokens.extent[1], width = tokens.extent[2];
  GlobalBatch b{static_cast<std::int64_t>(samples), static_cast<std::int64_t>(width - 1), {}, {}, {}, {}, {}};
  for (hsize_t row = 0; row < samples; ++row)
    for (hsize_t t = 0; t + 1 < width; ++t) {
      const std::size_t at = ((static_cast<hsize_t>(step) - 1) * samples + row) * width + t;
      b.ids.push_back(static_cast<std::int32_t>(tokens.values[at]));
      b.targets.push_back(static_cast<std::int32_t>(tokens.values[at + 1]));
    }
  return b;
}

GlobalTensors GoldenFile::tensors(const std::string& group) const {
  const auto opened = io::own_hdf5<io::Hdf5Group>(H5Gopen2(file_, group.c_str(), H5P_DEFAULT), group);
  std::vector<std::string> names;
  io::check_hdf5(H5Literate(opened.get(), H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, collect, &names), group);
  GlobalTensors tensors;
  for (const auto& name : names) {
    const Values v = read(file_, group + "/" + name);
    tensors[name] = {static_cast<std::int64_t>(v.extent[0]),
                     v.extent.size() == 2 ? static_cast<std::int64_t>(v.extent[1]) : 1,
                     {v.values.begin(), v.values.end()}};
  }
  return tensors;
}

std::vector<double> GoldenFile::values(const std::string& dataset) const {
  return read(file_, dataset).values;
}

}  // namespace llama3d::test
