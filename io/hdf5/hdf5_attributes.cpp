#include <fmt/format.h>

#include <algorithm>

#include "base/printable.hpp"
#include "io/hdf5/hdf5.hpp"

namespace llama3d::io {
namespace {

void write_scalar(hid_t object, const std::string& name, hid_t type, const void* value) {
  const std::string what = "write attribute " + name;
  if (has_attribute(object, name)) check_hdf5(H5Adelete(object, name.c_str()), what);
  const auto space = own_hdf5<Hdf5Space>(H5Screate(H5S_SCALAR), what);
  const auto attribute = own_hdf5<Hdf5Attribute>(
      H5Acreate2(object, name.c_str(), type, space.get(), H5P_DEFAULT, H5P_DEFAULT), what);
  check_hdf5(H5Awrite(attribute.get(), type, value), what);
}

Hdf5Attribute open_attribute(hid_t object, const std::string& name) {
  if (!has_attribute(object, name)) throw Hdf5Error("attribute " + name + " is missing");
  return own_hdf5<Hdf5Attribute>(H5Aopen(object, name.c_str(), H5P_DEFAULT), "open attribute " + name);
}

H5T_class_t class_of(hid_t attribute) {
  const auto type = own_hdf5<Hdf5Type>(H5Aget_type(attribute), "get an attribute's type");
  return H5Tget_class(type.get());
}

bool is_scalar(hid_t attribute) {
  const auto space = own_hdf5<Hdf5Space>(H5Aget_space(attribute), "get an attribute's shape");
  return H5Sget_simple_extent_npoints(space.get()) == 1;
}

std::string read_string(hid_t attribute, const std::string& name) {
  const auto type = own_hdf5<Hdf5Type>(H5Aget_type(attribute), "get an attribute's type");
  if (H5Tget_class(type.get()) != H5T_STRING || H5Tis_variable_str(type.get()) != 0 ||
      !is_scalar(attribute)) {
    throw Hdf5Error("attribute " + name + " is not a fixed-size string");
  }
  constexpr std::size_t longest = std::size_t{1} << 20;
  const std::size_t size = H5Tget_size(type.get());
  if (size > longest) throw Hdf5Error(fmt::format("attribute {} has {} bytes", printable(name), size));
  std::string value(size, '\0');
  check_hdf5(H5Aread(attribute, type.get(), value.data()), "read attribute " + name);
  value.resize(std::min(value.find('\0'), value.size()));
  return value;
}

std::string as_text(hid_t attribute, const std::string& name) {
  if (!is_scalar(attribute)) return "(array)";
  switch (class_of(attribute)) {
    case H5T_STRING: {
      const auto type = own_hdf5<Hdf5Type>(H5Aget_type(attribute), "get an attribute's type");
      return H5Tis_variable_str(type.get()) > 0 ? "(string of variable size)" : read_string(attribute, name);
    }
    case H5T_INTEGER: {
      std::int64_t value = 0;
      check_hdf5(H5Aread(attribute, H5T_NATIVE_INT64, &value), "read attribute " + name);
      return fmt::format("{}", value);
    }
    case H5T_FLOAT: {
      double value = 0;
      check_hdf5(H5Aread(attribute, H5T_NATIVE_DOUBLE, &value), "read attribute " + name);
      return fmt::format("{}", value);
    }
    default: return "(other type)";
  }
}

}  // namespace

bool has_attribute(hid_t object, const std::string& name) {
  const htri_t exists = H5Aexists(object, name.c_str());
  check_hdf5(exists, "look for attribute " + name);
  return exists > 0;
}

void write_attribute(hid_t object, const std::string& name, const std::string& value) {
  const auto type = string_type(value.size());
  write_scalar(object, name, type.get(), value.empty() ? "" : value.data());
}

void write_attribute(hid_t object, const std::string& name, std::int64_t value) {
  write_scalar(object, name, H5T_STD_I64LE, &value);
}

void write_attribute(hid_t object, const std::string& name, std::uint64_t value) {
  write_scalar(object, name, H5T_STD_U64LE, &value);
}

void write_attribute(hid_t object, const std::string& name, double value) {
  write_scalar(object, name, H5T_IEEE_F64LE, &value);
}

std::string read_string_attribute(hid_t object, const std::string& name) {
  const auto attribute = open_attribute(object, name);
  return read_string(attribute.get(), name);
}

std::int64_t read_integer_attribute(hid_t object, const std::string& name) {
  const auto attribute = open_attribute(object, name);
  if (class_of(attribute.get()) != H5T_INTEGER || !is_scalar(attribute.get())) {
    throw Hdf5Error("attribute " + name + " is not an integer");
  }
  std::int64_t value = 0;
  check_hdf5(H5Aread(attribute.get(), H5T_NATIVE_INT64, &value), "read attribute " + name);
  return value;
}

std::vector<std::pair<std::string, std::string>> attributes_as_text(hid_t object) {
  std::vector<std::string> names;
  const auto collect = [](hid_t, const char* name, const H5A_info_t*, void* out) -> herr_t {
    static_cast<std::vector<std::string>*>(out)->emplace_back(name);
    return 0;
  };
  check_hdf5(H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_INC, nullptr, collect, &names), "list attributes");
  std::vector<std::pair<std::string, std::string>> result;
  for (const auto& name : names) {
    const auto attribute = open_attribute(object, name);
    result.emplace_back(name, as_text(attribute.get(), name));
  }
  return result;
}

std::string format_of(hid_t file) {
  return has_attribute(file, "format") ? read_string_attribute(file, "format") : std::string();
}

}  // namespace llama3d::io
