#pragma once
// The HDF5 C library with owners and exceptions. For the files of this module: nothing else includes hdf5.h.

#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.hpp"
#include "base/unique_handle.hpp"
#include "io/posix/posix_file.hpp"

namespace llama3d::io {

/// A failed HDF5 call: what was tried, and the innermost reason that HDF5 gives.
struct Hdf5Error : IoError {
  using IoError::IoError;
};

template <herr_t (*Close)(hid_t)>
struct HidTraits {
  using Handle = hid_t;
  static constexpr Handle invalid = -1;
  static void release(Handle handle) { Close(handle); }
};
using Hdf5File = UniqueHandle<HidTraits<H5Fclose>>;
using Hdf5Group = UniqueHandle<HidTraits<H5Gclose>>;
using Hdf5Dataset = UniqueHandle<HidTraits<H5Dclose>>;
using Hdf5Space = UniqueHandle<HidTraits<H5Sclose>>;
using Hdf5Type = UniqueHandle<HidTraits<H5Tclose>>;
using Hdf5Properties = UniqueHandle<HidTraits<H5Pclose>>;
using Hdf5Attribute = UniqueHandle<HidTraits<H5Aclose>>;
using Hdf5Object = UniqueHandle<HidTraits<H5Oclose>>;

/// Starts the library, once: its own error printing off, its clean-up at exit off. The latter because it
/// crashes when an earlier close failed, and every file here is closed by its owner.
void initialize_hdf5();

/// Throws Hdf5Error when `status` is negative. `what` says what was tried: "write dataset /tokens".
void check_hdf5(std::int64_t status, std::string_view what);

/// Takes ownership of the id an HDF5 call returned, or throws.
template <class Owner>
Owner own_hdf5(hid_t id, std::string_view what) {
  check_hdf5(id, what);
  return Owner(id);
}

Hdf5Properties make_properties(hid_t property_class);
/// File access: default format version (readable by any HDF5 and while being written), no file locks, and a
/// close that closes all of the file's objects.
Hdf5Properties file_access();

/// Creation takes properties of class H5P_FILE_CREATE, or the default.
Hdf5File create_file(const std::filesystem::path& path, hid_t creation = H5P_DEFAULT);
/// Throws Hdf5Error, in words a user can act on, when the file is missing, empty, truncated or not HDF5.
Hdf5File open_file(const std::filesystem::path& path, bool for_writing = false);
/// Closes and checks; the destructor of Hdf5File can't.
void close_file(Hdf5File& file);
/// Size that the file has once everything is written.
std::int64_t file_size(hid_t file);

/// HDF5 type of an element in files and in memory: little endian; bf16 is an HDF5 float of 2 bytes.
Hdf5Type element_type(DType dtype);
/// The DType of a dataset's elements. Throws Hdf5Error for a type that is none.
DType dtype_of_dataset(hid_t dataset);
/// UTF-8, fixed size, padded with zeros.
Hdf5Type string_type(std::size_t bytes);

Hdf5Space make_space(const std::vector<hsize_t>& extent);
/// Throws Hdf5Error, too, for one whose data lies in another file: behind an external link, in external
/// storage, or a virtual dataset. Whoever made the file could so have any file read that this process may
/// read.
Hdf5Dataset open_dataset(hid_t location, const std::string& name);
/// Throws Hdf5Error for a dataset that open_dataset() refuses, unless it is a virtual one of nothing but
/// files that lie beside its own. Reads none of them.
void expect_virtual_of_neighbours(hid_t location, const std::string& name);
/// Throws Hdf5Error, too, for one behind an external link.
Hdf5Group open_group(hid_t location, const std::string& name);
std::vector<hsize_t> extent_of(hid_t dataset);
/// Whether `name` (one level) exists in `location`.
bool has_link(hid_t location, const std::string& name);

/// Elements [begin, begin + count) of a one-dimensional dataset.
void read_range(hid_t dataset, hid_t memory_type, hsize_t begin, hsize_t count, void* out);
void write_range(hid_t dataset, hid_t memory_type, hsize_t begin, hsize_t count, const void* data);

bool has_attribute(hid_t object, const std::string& name);
/// Each replaces an attribute of the same name.
void write_attribute(hid_t object, const std::string& name, const std::string& value);
void write_attribute(hid_t object, const std::string& name, std::int64_t value);
void write_attribute(hid_t object, const std::string& name, std::uint64_t value);
void write_attribute(hid_t object, const std::string& name, double value);
/// Throws Hdf5Error when the attribute is missing or of another kind, or a string of more than 1 MiB.
std::string read_string_attribute(hid_t object, const std::string& name);
std::int64_t read_integer_attribute(hid_t object, const std::string& name);
/// Every scalar attribute as text, in name order: {name, value}.
std::vector<std::pair<std::string, std::string>> attributes_as_text(hid_t object);

/// The root attribute "format" of our files; empty when there is none.
std::string format_of(hid_t file);

}  // namespace llama3d::io
