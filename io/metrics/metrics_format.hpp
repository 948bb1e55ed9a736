#pragma once
// What writing and describing a metrics file share.

#include "io/hdf5/hdf5.hpp"
#include "io/metrics/metrics_rows.hpp"

namespace llama3d::io {

inline constexpr const char* metrics_file_format = "llama3d metrics";
inline constexpr std::int64_t metrics_file_version = 1;

/// The HDF5 compound type of a row, the same in memory and in the file.
inline Hdf5Type row_type(const TableDescriptor& table) {
  auto type = own_hdf5<Hdf5Type>(H5Tcreate(H5T_COMPOUND, table.row_bytes), "make a row type");
  for (const FieldDescriptor& field : table.fields) {
    const Hdf5Type text = field.type == FieldType::text ? string_type(field.bytes) : Hdf5Type();
    const hid_t member = field.type == FieldType::int64     ? H5T_STD_I64LE
                         : field.type == FieldType::float64 ? H5T_IEEE_F64LE
                                                            : text.get();
    check_hdf5(H5Tinsert(type.get(), field.name.c_str(), field.offset, member), "make field " + field.name);
  }
  return type;
}

}  // namespace llama3d::io
