#include "io/hdf5/hdf5.hpp"

#include <fmt/format.h>

#include <bit>
#include <cstdlib>
#include <cstring>

#include "base/model_folder.hpp"
#include "base/printable.hpp"

namespace llama3d::io {

static_assert(std::endian::native == std::endian::little, "files are written in memory order");

namespace {

// HDF5's own sentences carry times and addresses; the system's reason inside them is what a user needs.
std::string shortened(std::string text) {
  const std::string_view mark = "error message = '";
  const auto begin = text.find(mark);
  if (begin == std::string::npos) return text;
  const auto from = begin + mark.size();
  const auto end = text.find('\'', from);
  return end == std::string::npos ? text : text.substr(from, end - from);
}

std::string innermost_reason() {
  std::string reason;
  const auto take_first = [](unsigned n, const H5E_error2_t* error, void* out) -> herr_t {
    if (n == 0 && error->desc != nullptr) *static_cast<std::string*>(out) = error->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_first, &reason);
  return reason.empty() ? "HDF5 gives no reason" : shortened(reason);
}

Hdf5Type bf16_type() {
  auto type = own_hdf5<Hdf5Type>(H5Tcopy(H5T_IEEE_F32LE), "make the bf16 type");
  // Sign bit 15, exponent of 8 bits from bit 7, mantissa of 7 bits from bit 0.
  check_hdf5(H5Tset_fields(type.get(), 15, 7, 8, 0, 7), "make the bf16 type");
  check_hdf5(H5Tset_precision(type.get(), 16), "make the bf16 type");
  check_hdf5(H5Tset_size(type.get(), 2), "make the bf16 type");
  check_hdf5(H5Tset_ebias(type.get(), 127), "make the bf16 type");
  return type;
}

}  // namespace

void initialize_hdf5() {
  static const bool done = [] {
    // Folders and files that are written have a lock of ours, which HDF5's would meet; the variable outweighs
    // what properties of a file say.
    ::setenv("HDF5_USE_FILE_LOCKING", "FALSE", 1);
    H5dont_atexit();
    if (H5open() < 0) throw Hdf5Error("the HDF5 library does not start");
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    return true;
  }();
  static_cast<void>(done);
}

void check_hdf5(std::int64_t status, std::string_view what) {
  if (status < 0) throw Hdf5Error(fmt::format("cannot {}: {}", what, innermost_reason()));
}

Hdf5Properties make_properties(hid_t property_class) {
  return own_hdf5<Hdf5Properties>(H5Pcreate(property_class), "make properties");
}

Hdf5Properties file_access() {
  initialize_hdf5();
  auto access = make_properties(H5P_FILE_ACCESS);
  check_hdf5(H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG), "set the close degree");
  return access;
}

Hdf5File create_file(const std::filesystem::path& path, hid_t creation) {
  const auto access = file_access();
  return own_hdf5<Hdf5File>(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access.get()),
                            "create the file");
}

Hdf5File open_file(const std::filesystem::path& path, bool for_writing) {
  const auto access = file_access();
  if (size_of_file(path) == 0) throw Hdf5Error("the file is empty");
  open_descriptor(path, for_writing ? OpenMode::read_write : OpenMode::read);  // the system's reason first
  if (const htri_t is_hdf5 = H5Fis_hdf5(path.c_str()); is_hdf5 == 0) throw Hdf5Error("not an HDF5 file");
  return own_hdf5<Hdf5File>(H5Fopen(path.c_str(), for_writing ? H5F_ACC_RDWR : H5F_ACC_RDONLY, access.get()),
                            "open as HDF5");
}

void close_file(Hdf5File& file) {
  check_hdf5(H5Fclose(file.detach()), "close the file");
}

std::int64_t file_size(hid_t file) {
  hsize_t size = 0;
  check_hdf5(H5Fget_filesize(file, &size), "get the file's size");
  return static_cast<std::int64_t>(size);
}

Hdf5Type element_type(DType dtype) {
  switch (dtype) {
    case DType::bf16: return bf16_type();
    case DType::fp32: return own_hdf5<Hdf5Type>(H5Tcopy(H5T_IEEE_F32LE), "copy a type");
    case DType::fp64: return own_hdf5<Hdf5Type>(H5Tcopy(H5T_IEEE_F64LE), "copy a type");
    case DType::int32: return own_hdf5<Hdf5Type>(H5Tcopy(H5T_STD_I32LE), "copy a type");
  }
  throw Hdf5Error("unknown element type");
}

DType dtype_of_dataset(hid_t dataset) {
  const auto type = own_hdf5<Hdf5Type>(H5Dget_type(dataset), "get a dataset's type");
  for (const DType dtype : {DType::fp32, DType::bf16, DType::fp64, DType::int32}) {
    if (H5Tequal(type.get(), element_type(dtype).get()) > 0) return dtype;
  }
  throw Hdf5Error("elements are none of fp32, bf16, fp64, int32");
}

Hdf5Type string_type(std::size_t bytes) {
  auto type = own_hdf5<Hdf5Type>(H5Tcopy(H5T_C_S1), "copy a type");
  check_hdf5(H5Tset_size(type.get(), bytes > 0 ? bytes : 1), "size a string type");
  check_hdf5(H5Tset_strpad(type.get(), H5T_STR_NULLPAD), "pad a string type");
  check_hdf5(H5Tset_cset(type.get(), H5T_CSET_UTF8), "make a string type UTF-8");
  return type;
}

Hdf5Space make_space(const std::vector<hsize_t>& extent) {
  return own_hdf5<Hdf5Space>(H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr),
                             "make a dataspace");
}

namespace {

/// HDF5 calls it before it follows an external link.
herr_t refuse_link(const char*, const char*, const char* file, const char*, unsigned*, hid_t, void* target) {
  *static_cast<std::string*>(target) = file;
  return -1;
}

template <class Owner, class Open>
Owner open_own(hid_t property_class, const std::string& what, Open&& open) {
  const auto access = make_properties(property_class);
  std::string target;
  check_hdf5(H5Pset_elink_cb(access.get(), refuse_link, &target), "refuse external links");
  Owner object(open(access.get()));
  if (!target.empty())
    throw Hdf5Error(
        fmt::format("{} is a link into another file, {}, which is not followed", what, printable(target)));
  check_hdf5(object.get(), "open " + what);
  return object;
}

Hdf5Dataset open_in_file(hid_t location, const std::string& name, const std::string& what) {
  return open_own<Hdf5Dataset>(H5P_DATASET_ACCESS, what,
                               [&](hid_t access) { return H5Dopen2(location, name.c_str(), access); });
}

/// How the dataset is stored, once that is not in files of any kind. Virtual ones are left to the caller.
Hdf5Properties creation_of(hid_t dataset, const std::string& what) {
  auto creation = own_hdf5<Hdf5Properties>(H5Dget_create_plist(dataset), "look at " + what);
  const int files = H5Pget_external_count(creation.get());
  check_hdf5(files, "look at the storage of " + what);
  if (files > 0) throw Hdf5Error(what + " keeps its data in another file, which is not read");
  return creation;
}

std::string virtual_source(hid_t creation, std::size_t index, const std::string& what) {
  const ssize_t length = H5Pget_virtual_filename(creation, index, nullptr, 0);
  check_hdf5(length, "look at the sources of " + what);
  std::string file(static_cast<std::size_t>(length) + 1, '\0');
  check_hdf5(H5Pget_virtual_filename(creation, index, file.data(), file.size()),
             "look at the sources of " + what);
  file.pop_back();
  return file;
}

}  // namespace

Hdf5Dataset open_dataset(hid_t location, const std::string& name) {
  const std::string what = "dataset " + printable(name);
  auto dataset = open_in_file(location, name, what);
  if (H5Pget_layout(creation_of(dataset.get(), what).get()) == H5D_VIRTUAL)
    throw Hdf5Error(what + " is put together from other files (a virtual dataset), which are not read");
  return dataset;
}

void expect_virtual_of_neighbours(hid_t location, const std::string& name) {
  const std::string what = "dataset " + printable(name);
  const auto dataset = open_in_file(location, name, what);
  const auto creation = creation_of(dataset.get(), what);
  if (H5Pget_layout(creation.get()) != H5D_VIRTUAL) return;
  std::size_t count = 0;
  check_hdf5(H5Pget_virtual_count(creation.get(), &count), "look at the sources of " + what);
  for (std::size_t i = 0; i < count; ++i)
    if (const std::string file = virtual_source(creation.get(), i, what);
        file != "." && !is_plain_file_name(file))
      throw Hdf5Error(
          fmt::format("{} is put together from {}, which lies in another folder", what, printable(file)));
}

Hdf5Group open_group(hid_t location, const std::string& name) {
  return open_own<Hdf5Group>(H5P_GROUP_ACCESS, "group " + printable(name),
                             [&](hid_t access) { return H5Gopen2(location, name.c_str(), access); });
}

std::vector<hsize_t> extent_of(hid_t dataset) {
  const auto space = own_hdf5<Hdf5Space>(H5Dget_space(dataset), "get a dataset's shape");
  const int rank = H5Sget_simple_extent_ndims(space.get());
  check_hdf5(rank, "get a dataset's shape");
  std::vector<hsize_t> extent(static_cast<std::size_t>(rank));
  if (rank > 0) {
    check_hdf5(H5Sget_simple_extent_dims(space.get(), extent.data(), nullptr), "get a dataset's shape");
  }
  return extent;
}

bool has_link(hid_t location, const std::string& name) {
  const htri_t exists = H5Lexists(location, name.c_str(), H5P_DEFAULT);
  check_hdf5(exists, "look for " + name);
  return exists > 0;
}

namespace {

Hdf5Space select_range(hid_t dataset, hsize_t begin, hsize_t count) {
  auto space = own_hdf5<Hdf5Space>(H5Dget_space(dataset), "get a dataset's shape");
  check_hdf5(H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &begin, nullptr, &count, nullptr),
             "select a range");
  return space;
}

}  // namespace

void read_range(hid_t dataset, hid_t memory_type, hsize_t begin, hsize_t count, void* out) {
  if (count == 0) return;
  const auto file_space = select_range(dataset, begin, count);
  const auto memory_space = make_space({count});
  check_hdf5(H5Dread(dataset, memory_type, memory_space.get(), file_space.get(), H5P_DEFAULT, out),
             "read data");
}

void write_range(hid_t dataset, hid_t memory_type, hsize_t begin, hsize_t count, const void* data) {
  if (count == 0) return;
  const auto file_space = select_range(dataset, begin, count);
  const auto memory_space = make_space({count});
  check_hdf5(H5Dwrite(dataset, memory_type, memory_space.get(), file_space.get(), H5P_DEFAULT, data),
             "write data");
}

}  // namespace llama3d::io
