#include "io/metrics/metrics_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <set>
#include <variant>

#include "base/error.hpp"
#include "io/hdf5/hdf5.hpp"
#include "io/metrics/metrics_format.hpp"

namespace llama3d {

using namespace io;

namespace {

// Room for a new chunk of each table and its index.
constexpr std::int64_t reserve_step = std::int64_t{1} << 20;
constexpr std::size_t longest_attribute = 60000;
constexpr std::int64_t unwritten_step = -1;

struct OpenTable {
  Hdf5Dataset dataset;
  hsize_t rows = 0;
};

std::int64_t step_of(const TableDescriptor& table, const std::byte* row) {
  std::int64_t step = 0;
  std::memcpy(&step, row + table.fields.front().offset, sizeof step);
  return step;
}

// What a row reads as whose chunk a kill kept from the file: a new chunk and the table's new length are two
// writes.
std::vector<std::byte> unwritten_row(const TableDescriptor& table) {
  std::vector<std::byte> row(table.row_bytes);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const FieldDescriptor& field : table.fields) {
    if (field.type == FieldType::float64) std::memcpy(row.data() + field.offset, &nan, sizeof nan);
  }
  std::memcpy(row.data() + table.fields.front().offset, &unwritten_step, sizeof unwritten_step);
  return row;
}

OpenTable create_table(hid_t file, const TableDescriptor& table) {
  const hsize_t size = 0, unlimited = H5S_UNLIMITED, chunk = table.chunk_rows;
  const auto space = own_hdf5<Hdf5Space>(H5Screate_simple(1, &size, &unlimited), "make a dataspace");
  const auto creation = make_properties(H5P_DATASET_CREATE);
  check_hdf5(H5Pset_chunk(creation.get(), 1, &chunk), "set the chunk size");
  const auto type = row_type(table);
  check_hdf5(H5Pset_fill_value(creation.get(), type.get(), unwritten_row(table).data()),
             "set the fill value");
  OpenTable result;
  result.dataset = own_hdf5<Hdf5Dataset>(
      H5Dcreate2(file, table.name.c_str(), type.get(), space.get(), H5P_DEFAULT, creation.get(), H5P_DEFAULT),
      "create table /" + table.name);
  for (const FieldDescriptor& field : table.fields) {
    if (!field.unit.empty()) write_attribute(result.dataset.get(), field.name + "_unit", field.unit);
  }
  return result;
}

OpenTable open_table(hid_t file, const TableDescriptor& table) {
  if (!has_link(file, table.name)) throw IoError("table /" + table.name + " is missing");
  OpenTable result;
  result.dataset = open_dataset(file, table.name);
  const auto type = own_hdf5<Hdf5Type>(H5Dget_type(result.dataset.get()), "get a table's type");
  if (H5Tequal(type.get(), row_type(table).get()) <= 0) {
    throw IoError("table /" + table.name + " has other fields");
  }
  const auto extent = extent_of(result.dataset.get());
  if (extent.size() != 1) throw IoError("/" + table.name + " is no table");
  result.rows = extent[0];
  return result;
}

void set_rows(OpenTable& open, hsize_t rows) {
  check_hdf5(H5Dset_extent(open.dataset.get(), &rows), "cut a table");
  open.rows = rows;
}

// Keeps the rows up to `last_step` that were written, in their order.
void cut_table(const TableDescriptor& table, OpenTable& open, std::int64_t last_step) {
  const auto type = row_type(table);
  const hsize_t block = 4096;
  std::vector<std::byte> rows;
  hsize_t kept = 0;
  for (hsize_t begin = 0; begin < open.rows; begin += block) {
    const hsize_t count = std::min(block, open.rows - begin);
    rows.resize(count * table.row_bytes);
    read_range(open.dataset.get(), type.get(), begin, count, rows.data());
    hsize_t good = 0;
    for (hsize_t i = 0; i < count; ++i) {
      const std::byte* row = rows.data() + i * table.row_bytes;
      if (step_of(table, row) > last_step || step_of(table, row) == unwritten_step) continue;
      if (good != i) std::memmove(rows.data() + good * table.row_bytes, row, table.row_bytes);
      ++good;
    }
    if (good != count || kept != begin) write_range(open.dataset.get(), type.get(), kept, good, rows.data());
    kept += good;
  }
  set_rows(open, kept);
}

}  // namespace

struct MetricsFile::State {
  std::filesystem::path path, set_aside;
  std::string set_aside_reason;
  Hdf5File file;
  Hdf5Group run;
  SpaceReserve space;
  std::map<std::string, OpenTable> tables;
  std::map<std::string, hsize_t> rows;  // that were appended, by table; while the file is closed too
  FileDescriptor identity;              // of the file, while it is closed too
  std::map<std::string, std::variant<std::string, std::int64_t, double>> attributes;
  std::set<std::string> unwritten;  // of the attributes
  bool broken = false;

  ~State() { close(); }

  void reserve(std::int64_t bytes) { space.ensure(file_size(file.get()) + bytes + reserve_step, true); }
  void flush() { check_hdf5(H5Fflush(file.get(), H5F_SCOPE_GLOBAL), "flush the file"); }
  void create();
  void open_existing();
  /// Adds the tables that are missing, and calls `cut` for every one.
  void take_over(const std::function<void(const TableDescriptor&, OpenTable&)>& cut);
  void reopen();
  void set_attribute(const std::string& name, std::variant<std::string, std::int64_t, double> value);
  void write_attributes();
  void move_aside(const std::string& kind, const std::string& reason);
  void close() noexcept;

  template <class Action>
  void guarded(Action&& action) {
    if (broken) fail("an earlier write failed");
    try {
      action();
    } catch (const Hdf5Error& error) {
      broken = true;  // HDF5's own state is uncertain now
      fail(error.what());
    } catch (const IoError& error) {
      fail(error.what());
    } catch (const std::filesystem::filesystem_error& error) {
      fail(error.what());
    }
  }
  [[noreturn]] void fail(const std::string& reason) const {
    throw Error(ExitStatus::failure,
                fmt::format("metrics file {} cannot be written ({}); make room or check the file system",
                            path.string(), reason));
  }
};

void MetricsFile::State::create() {
  const auto creation = make_properties(H5P_FILE_CREATE);
  // 1,024 chunks in one index node, so that it splits only after half a million rows: a split is several
  // writes, which a kill could part.
  check_hdf5(H5Pset_istore_k(creation.get(), 512), "size the chunk index");
  file = create_file(path, creation.get());
  identity = open_descriptor(path, OpenMode::read);
  space = SpaceReserve(path);
  reserve(0);
  write_attribute(file.get(), "format", std::string(metrics_file_format));
  write_attribute(file.get(), "version", metrics_file_version);
  run = own_hdf5<Hdf5Group>(H5Gcreate2(file.get(), "run", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                            "create group /run");
  for (const TableDescriptor& table : metrics_tables()) tables[table.name] = create_table(file.get(), table);
  flush();
}

void MetricsFile::State::open_existing() {
  file = open_file(path, true);
  identity = open_descriptor(path, OpenMode::read);
  if (const std::string format = format_of(file.get()); format != metrics_file_format) {
    throw IoError("it is no metrics file");
  }
  if (const auto version = read_integer_attribute(file.get(), "version"); version != metrics_file_version) {
    throw IoError(fmt::format("its version is {}, this program writes {}", version, metrics_file_version));
  }
  run = open_group(file.get(), "run");
  for (const TableDescriptor& table : metrics_tables()) {
    if (table.in_every_file || has_link(file.get(), table.name))
      tables[table.name] = open_table(file.get(), table);
  }
}

void MetricsFile::State::take_over(const std::function<void(const TableDescriptor&, OpenTable&)>& cut) {
  space = SpaceReserve(path);
  reserve(0);
  for (const TableDescriptor& table : metrics_tables()) {
    if (!tables.contains(table.name)) tables[table.name] = create_table(file.get(), table);
    cut(table, tables[table.name]);
  }
  flush();
}

// A file that can be read is no damaged one, though writing to it fails.
void MetricsFile::State::reopen() {
  const bool ours = identity && leads_to(path, identity.get());
  close();
  broken = true;  // until it is open
  set_aside.clear();
  std::filesystem::create_directories(std::filesystem::absolute(path).parent_path());
  if (std::filesystem::exists(std::filesystem::symlink_status(path))) {
    try {
      if (ours) open_existing();
    } catch (const IoError& error) {
      const std::string reason = error.what();
      close();
      move_aside("damaged", reason);
    }
    if (file) {
      take_over([&](const TableDescriptor& table, OpenTable& open) {
        set_rows(open, std::min(open.rows, rows[table.name]));
      });
      broken = false;
      return;
    }
    if (!ours) move_aside("previous", "not the file of this run");
  }
  try {
    create();
  } catch (...) {
    close();
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
    throw;
  }
  rows.clear();
  for (const auto& [name, value] : attributes) unwritten.insert(name);
  broken = false;
}

void MetricsFile::State::move_aside(const std::string& kind, const std::string& reason) {
  int number = 1;
  do {
    set_aside = fmt::format("{}.{}-{}", path.string(), kind, number++);
  } while (std::filesystem::exists(std::filesystem::symlink_status(set_aside)));
  io::rename(path, set_aside);
  set_aside_reason = reason;
}

void MetricsFile::State::close() noexcept {
  tables.clear();
  run.reset();
  if (!file) return;
  try {
    const std::int64_t size = file_size(file.get());
    close_file(file);
    space.finish(size);
  } catch (...) {
    // Rows were flushed one by one; what could still fail is only the trimming.
  }
  file.reset();
  space = SpaceReserve();
}

MetricsFile::MetricsFile(const std::filesystem::path& path, std::optional<std::int64_t> resume_step)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.path = path;
  s.guarded([&] {
    if (!path.parent_path().empty()) std::filesystem::create_directories(path.parent_path());
    if (std::filesystem::exists(path)) {
      if (!resume_step) {
        s.move_aside("previous", "a new run");
      } else {
        // A file that can't be written to, or a full disk, says nothing against the file.
        s.space = SpaceReserve(path);
        s.space.ensure(size_of_file(path) + reserve_step);
        try {
          s.open_existing();
          s.take_over([&](const TableDescriptor& table, OpenTable& open) {
            cut_table(table, open, *resume_step);
            s.rows[table.name] = open.rows;
          });
          return;
        } catch (const IoError& error) {
          const std::string reason = error.what();
          s.close();
          s.move_aside("damaged", reason);
        }
      }
    }
    s.create();
  });
}

MetricsFile::~MetricsFile() = default;
MetricsFile::MetricsFile(MetricsFile&&) noexcept = default;

const std::filesystem::path& MetricsFile::set_aside() const {
  return state_->set_aside;
}
const std::string& MetricsFile::set_aside_reason() const {
  return state_->set_aside_reason;
}

void MetricsFile::append_rows(const TableDescriptor& table, const void* rows, std::size_t count) {
  State& s = *state_;
  s.guarded([&] {
    const auto found = s.tables.find(table.name);
    LLAMA3D_EXPECT(found != s.tables.end(), "metrics file {} has no table {}", s.path.string(), table.name);
    s.write_attributes();
    OpenTable& open = found->second;
    s.reserve(static_cast<std::int64_t>(count * table.row_bytes));
    const hsize_t size = open.rows + count;
    check_hdf5(H5Dset_extent(open.dataset.get(), &size), "grow table /" + table.name);
    write_range(open.dataset.get(), row_type(table).get(), open.rows, count, rows);
    s.flush();
    open.rows = s.rows[table.name] = size;
  });
}

void MetricsFile::State::set_attribute(const std::string& name,
                                       std::variant<std::string, std::int64_t, double> value) {
  attributes[name] = std::move(value);
  unwritten.insert(name);
  guarded([&] { write_attributes(); });
}

void MetricsFile::State::write_attributes() {
  if (unwritten.empty()) return;
  for (const std::string& name : unwritten) {
    reserve(0);
    std::visit([&](const auto& value) { write_attribute(run.get(), name, value); }, attributes.at(name));
  }
  flush();
  unwritten.clear();
}

void MetricsFile::set_run_attribute(const std::string& name, const std::string& value) {
  state_->set_attribute(name, value.substr(0, longest_attribute));
}

void MetricsFile::set_run_attribute(const std::string& name, std::int64_t value) {
  state_->set_attribute(name, value);
}

void MetricsFile::set_run_attribute(const std::string& name, double value) {
  state_->set_attribute(name, value);
}

std::int64_t MetricsFile::rows(const std::string& table) const {
  const auto found = state_->rows.find(table);
  return found == state_->rows.end() ? 0 : static_cast<std::int64_t>(found->second);
}

bool MetricsFile::broken() const {
  return state_->broken;
}

bool MetricsFile::in_place() const {
  return leads_to(state_->path, state_->identity.get());
}

void MetricsFile::reopen() {
  state_->broken = false;
  state_->guarded([&] { state_->reopen(); });
}

void MetricsFile::sync() {
  state_->guarded([&] { io::sync(state_->space.descriptor()); });
}

}  // namespace llama3d
