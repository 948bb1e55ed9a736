#pragma once
// metrics.h5: a growing one-dimensional compound table for each kind of row, and attributes under /run.
//
// Every appended row is flushed: other programs read the file while it is written (h5py, pandas.read_hdf,
// h5dump), and a killed process loses no row it appended. The row that it was appending may be there with
// step -1 and NaN; resuming drops it. File locks are off and the file format is the default one.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "io/metrics/metrics_rows.hpp"

namespace llama3d {

class MetricsFile {
 public:
  /// Without `resume_step` a new file begins; one that exists is renamed to `path`.previous-N. With it the
  /// existing file loses its rows of later steps and is continued; one that can't be is renamed to
  /// `path`.damaged-N and a new one begins. Throws Error (exit status 1) when no file can be made.
  explicit MetricsFile(const std::filesystem::path& path, std::optional<std::int64_t> resume_step = {});
  ~MetricsFile();
  MetricsFile(MetricsFile&&) noexcept;

  /// The name that an existing file was given, and why ("a new run", or what is wrong with it); empty if none
  /// was.
  const std::filesystem::path& set_aside() const;
  const std::string& set_aside_reason() const;

  /// Appends rows and flushes once. Throws Error when they can't be written (disk full): the rows before stay
  /// readable, and a later call tries again unless the file is broken().
  void append(const TrainRow& row) { append_rows(table_of(row), &row, 1); }
  void append(const ValidRow& row) { append_rows(table_of(row), &row, 1); }
  void append(const EventRow& row) { append_rows(table_of(row), &row, 1); }
  void append(const RankRow& row) { append_rows(table_of(row), &row, 1); }
  void append(const CommunicationRow& row) { append_rows(table_of(row), &row, 1); }
  template <class Row>
  void append(const std::vector<Row>& rows) {
    if (!rows.empty()) append_rows(table_of(rows.front()), rows.data(), rows.size());
  }
  /// `rows` are `count` structs one after the other.
  void append_rows(const TableDescriptor& table, const void* rows, std::size_t count);

  /// Attribute of /run; replaces one of the same name. Strings over 60,000 bytes are cut.
  void set_run_attribute(const std::string& name, const std::string& value);
  void set_run_attribute(const std::string& name, const char* value) {
    set_run_attribute(name, std::string(value));
  }
  void set_run_attribute(const std::string& name, std::int64_t value);
  void set_run_attribute(const std::string& name, double value);

  std::int64_t rows(const std::string& table) const;
  /// Something may be half written: every further call but reopen() throws.
  bool broken() const;
  /// Whether the file still has its name: false once it, or a folder above it, was removed or renamed.
  bool in_place() const;
  /// Opens the file again, with the rows that were appended, after which it is neither broken nor out of
  /// place. One that can't be read is set aside as by the constructor; where it lost its name a new one
  /// begins, and what has the name is set aside. A new one has the attributes of /run. Throws Error where
  /// that fails: a later call may succeed.
  void reopen();
  /// Onto the disk itself, for a power loss; at checkpoints.
  void sync();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace llama3d
