#include "io/metrics/bench_file.hpp"

#include <fmt/format.h>

#include <cstddef>
#include <cstring>

#include "base/error.hpp"
#include "io/metrics/metrics_format.hpp"
#include "io/posix/partial_file.hpp"

namespace llama3d {

using namespace io;

namespace {

/// A row as it lies in the file.
struct StoredRow {
  char group[16] = {}, name[48] = {}, shape[64] = {}, dtype[32] = {};
  double seconds = 0, work = 0;
  char unit[16] = {};
  double rate = 0, ceiling = 0, fraction = 0;
};

const TableDescriptor& descriptor() {
  static const TableDescriptor table{
      "bench",
      sizeof(StoredRow),
      64,
      {{"group", FieldType::text, offsetof(StoredRow, group), sizeof(StoredRow::group), ""},
       {"name", FieldType::text, offsetof(StoredRow, name), sizeof(StoredRow::name), ""},
       {"shape", FieldType::text, offsetof(StoredRow, shape), sizeof(StoredRow::shape), ""},
       {"dtype", FieldType::text, offsetof(StoredRow, dtype), sizeof(StoredRow::dtype), ""},
       {"seconds", FieldType::float64, offsetof(StoredRow, seconds), sizeof(double), "s"},
       {"work", FieldType::float64, offsetof(StoredRow, work), sizeof(double), ""},
       {"unit", FieldType::text, offsetof(StoredRow, unit), sizeof(StoredRow::unit), ""},
       {"rate", FieldType::float64, offsetof(StoredRow, rate), sizeof(double), "unit/s"},
       {"ceiling", FieldType::float64, offsetof(StoredRow, ceiling), sizeof(double), "unit/s"},
       {"fraction", FieldType::float64, offsetof(StoredRow, fraction), sizeof(double), "1"}}};
  return table;
}

template <std::size_t size>
void put(char (&target)[size], const std::string& text) {
  std::memcpy(target, text.data(), std::min(text.size(), size));
}

StoredRow stored(const BenchRow& row) {
  StoredRow s;
  put(s.group, row.group);
  put(s.name, row.name);
  put(s.shape, row.shape);
  put(s.dtype, row.dtype);
  put(s.unit, row.unit);
  s.seconds = row.seconds;
  s.work = row.work;
  s.rate = row.rate;
  s.ceiling = row.ceiling;
  s.fraction = row.fraction;
  return s;
}

/// What HDF5 takes of the disk at most: the rows, and for every attribute its text and more than its header.
std::int64_t room_for(std::size_t rows, const std::map<std::string, std::string>& attributes) {
  std::size_t bytes = std::size_t{64} << 10;
  for (const auto& [name, value] : attributes) bytes += 1024 + name.size() + value.size();
  return static_cast<std::int64_t>(bytes + rows * sizeof(StoredRow));
}

void write_all(hid_t file, const std::vector<BenchRow>& rows,
               const std::map<std::string, std::string>& attributes) {
  std::vector<StoredRow> all;
  for (const BenchRow& row : rows) all.push_back(stored(row));
  write_attribute(file, "format", std::string("llama3d bench"));
  for (const auto& [name, value] : attributes) write_attribute(file, name, value);
  const auto type = row_type(descriptor());
  const auto space = make_space({all.size()});
  const auto dataset = own_hdf5<Hdf5Dataset>(H5Dcreate2(file, descriptor().name.c_str(), type.get(),
                                                        space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                                             "create table /bench");
  if (!all.empty()) write_range(dataset.get(), type.get(), 0, all.size(), all.data());
}

template <class Action>
void guarded(const std::filesystem::path& path, Action&& action) {
  try {
    action();
  } catch (const IoError& error) {
    throw Error(ExitStatus::failure,
                fmt::format("{} cannot be written ({}); give another `output`", path.string(), error.what()));
  }
}

}  // namespace

void check_bench_file(const std::filesystem::path& path) {
  guarded(path, [&] { PartialFile probe(path); });
}

void write_bench_file(const std::filesystem::path& path, const std::vector<BenchRow>& rows,
                      const std::map<std::string, std::string>& attributes) {
  guarded(path, [&] {
    PartialFile partial(path);
    Hdf5File file = create_file(partial.path());
    SpaceReserve space(partial.path());
    space.ensure(room_for(rows.size(), attributes));
    write_all(file.get(), rows, attributes);
    close_file(file);
    space.finish(size_of_file(partial.path()));
    partial.commit();
  });
}

}  // namespace llama3d
