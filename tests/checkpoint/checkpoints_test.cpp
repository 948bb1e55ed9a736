// Which checkpoints a run sets aside, clears up, and goes on from, and what they record: no model's tensors.
#include "checkpoint/checkpoints.hpp"

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <set>

#include "base/error.hpp"
#include "base/json.hpp"
#include "checkpoint/checkpoint_contents.hpp"
#include "checkpoint/run_changes.hpp"
#include "comm/failure.hpp"
#include "compute/host/host_device.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "support/error_message.hpp"
#include "support/immediate_stream.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using test::says;
namespace fs = std::filesystem;

namespace {

CheckpointAttributes attributes() {
  return {.model = load_model_config("llama3-tiny"), .origin = {}, .run = RunRecord{}};
}

struct Folder : test::TemporaryFolder {
  std::vector<std::string> notes;
  std::unique_ptr<ControlPlane> control = make_local_control_plane();
  Checkpoints checkpoints{path(), 3, attributes(), *control,
                          [this](const std::string& text) { notes.push_back(text); }};

  void add(std::initializer_list<const char*> names) {
    for (const char* name : names) write(std::string(name) + "/rank_00000.h5", name);
  }
  std::set<std::string> names() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(path())) names.insert(entry.path().filename());
    return names;
  }
};

using Names = std::set<std::string>;

/// The state of a rank that owns nothing: its checkpoints hold no tensor.
struct NoState {
  ModelConfig config = load_model_config("llama3-tiny");
  ProcessGrid grid{{}, 0};
  ParameterTable table{config, grid, partition_layers(config, 1)};
  ModelStateMemory memory;
  std::unique_ptr<Device> device = make_host_device(1);
  test::ImmediateStream stream;
  ModelState state{table, {}, grid, memory, *device, stream};
};

/// As a run saves whose next step is finite.
fs::path saved(Checkpoints& checkpoints, std::int64_t step) {
  NoState none;
  const fs::path folder = checkpoints.save({.step = step}, none.state);
  checkpoints.remove_old(step);
  return folder;
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(checkpoint_policy, Folder)

BOOST_AUTO_TEST_CASE(a_run_that_goes_on_sets_nothing_aside) {
  add({"step_00000002", "step_00000004"});
  checkpoints.prepare(2, /*alone=*/false);
  BOOST_CHECK(names() == (Names{"step_00000002", "step_00000004"}));
  BOOST_TEST(notes.empty());
}

BOOST_AUTO_TEST_CASE(a_run_of_its_own_sets_later_steps_aside) {
  add({"step_00000002", "step_00000004", "step_00000010", "step_00000004.previous-1", "notes"});
  checkpoints.prepare(2, /*alone=*/true);
  BOOST_CHECK(names() == (Names{"step_00000002", "step_00000004.previous-1", "step_00000004.previous-2",
                                "step_00000010.previous-1", "notes"}));
  BOOST_TEST(notes.size() == 2u);
  // What was put aside first keeps its name, and nothing of it changed.
  std::ifstream first(*this / "step_00000004.previous-1/rank_00000.h5");
  BOOST_TEST(std::string(std::istreambuf_iterator<char>(first), {}) == "step_00000004.previous-1");
}

BOOST_AUTO_TEST_CASE(what_killed_runs_left_half_written_goes) {
  add({"step_00000002", "step_00000004.partial", "step_00000006.removed", "step_00000008.replaced"});
  checkpoints.prepare(0, /*alone=*/false);
  BOOST_CHECK(names() == (Names{"step_00000002", "step_00000008"}));
}

BOOST_AUTO_TEST_CASE(the_newest_that_can_be_used_is_taken) {
  add({"step_00000002", "step_00000004", "step_00000010", "step_00000010.previous-1"});
  std::vector<std::int64_t> tried;
  std::vector<std::string> refused;
  const auto use = [&](const fs::path& folder) {
    tried.push_back(checkpoint_step(folder));
    if (tried.back() > 2) throw CheckpointError("damaged " + std::to_string(tried.back()));
  };
  const UsableCheckpoint found = first_usable(list_checkpoints(path()), use,
                                              [&](const std::string& reason) { refused.push_back(reason); });
  BOOST_TEST(tried == (std::vector<std::int64_t>{10, 4, 2}), boost::test_tools::per_element());
  BOOST_TEST(refused == (std::vector<std::string>{"damaged 10", "damaged 4"}),
             boost::test_tools::per_element());
  BOOST_TEST_REQUIRE(found.folder.has_value());
  BOOST_TEST(*found.folder == *this / "step_00000002");
}

BOOST_AUTO_TEST_CASE(where_none_can_be_used_the_last_reason_is_kept) {
  add({"step_00000002", "step_00000004"});
  const auto found = first_usable(list_checkpoints(path()), [](const fs::path& folder) {
    throw CheckpointError(folder.filename().string());
  });
  BOOST_TEST(!found.folder.has_value());
  BOOST_TEST(found.refusal == "step_00000002");
}

// Another model's checkpoint is a mistake of the user: an older one of the same folder would be wrong too.
BOOST_AUTO_TEST_CASE(other_errors_end_the_search) {
  add({"step_00000002", "step_00000004"});
  int tried = 0;
  BOOST_CHECK_THROW(first_usable(list_checkpoints(path()),
                                 [&](const fs::path&) {
                                   ++tried;
                                   throw ConfigurationError("another model");
                                 }),
                    ConfigurationError);
  BOOST_TEST(tried == 1);
}

BOOST_AUTO_TEST_CASE(a_save_keeps_the_newest) {
  for (const std::int64_t step : {5, 10, 15, 20, 25})
    BOOST_TEST(saved(checkpoints, step) == *this / checkpoint_folder_name(step));
  BOOST_CHECK(names() == (Names{"step_00000015", "step_00000020", "step_00000025"}));
  BOOST_TEST(notes.empty());
}

BOOST_AUTO_TEST_CASE(all_stay_where_the_number_is_zero) {
  Checkpoints all(path(), 0, attributes(), *control, {});
  for (const std::int64_t step : {1, 2, 3, 4}) saved(all, step);
  BOOST_TEST(names().size() == 4u);
}

// Later steps are there only where they could not be loaded; what was put aside is another run's.
BOOST_AUTO_TEST_CASE(what_can_not_be_loaded_counts_for_nothing) {
  for (const std::int64_t step : {1, 2, 3}) saved(checkpoints, step);
  add({"step_00000004", "step_00000030", "step_00000001.previous-1"});
  write("step_00000005", "a file");
  saved(checkpoints, 6);
  BOOST_CHECK(names() == (Names{"step_00000002", "step_00000003", "step_00000004", "step_00000005",
                                "step_00000006", "step_00000030", "step_00000001.previous-1"}));
  saved(checkpoints, 7);
  saved(checkpoints, 8);
  BOOST_CHECK(names() == (Names{"step_00000005", "step_00000006", "step_00000007", "step_00000008",
                                "step_00000030", "step_00000001.previous-1"}));
}

BOOST_AUTO_TEST_CASE(a_save_replaces_the_checkpoint_of_its_step) {
  add({"step_00000002"});
  NoState none;
  const auto folder = checkpoints.save({.step = 2, .consumed_samples = 56, .tokens = 1234}, none.state);
  BOOST_CHECK(names() == (Names{"step_00000002"}));
  const std::string attributes = CheckpointReader(folder).attributes();
  for (const char* text : {R"("step":2)", R"("consumed_samples":56)", R"("tokens":1234)"})
    BOOST_TEST(attributes.find(text) != std::string::npos, attributes);
}

BOOST_AUTO_TEST_CASE(attributes_come_back) {
  CheckpointAttributes written = attributes();
  written.origin = {"/models/folder", R"({"eos_token_id":[1,2]})", R"({"temperature":0.5})", {{"a", "hash"}}};
  written.run = RunRecord{.position = {},
                          .grid = "TP 1",
                          .seed = ~std::uint64_t{0},
                          .sequence = 8,
                          .global_batch = {},
                          .data = "identity",
                          .packing = {},
                          .valid_fraction = 0.1,
                          .separate_documents = false,
                          .tokenizer = {"tokenizer.model", "0123"},
                          .configuration = R"({"steps":3})"};
  Checkpoints saver(path(), 0, written, *control, {});
  const CheckpointContents contents(saved(saver, 7));
  BOOST_TEST(contents.step() == 7);
  BOOST_TEST(contents.sequence() == 8);
  BOOST_TEST(contents.position().step == 7);
  BOOST_TEST(differences(contents.model(), written.model).empty());
  BOOST_TEST(contents.origin().to_json() == written.origin.to_json());
  BOOST_TEST_REQUIRE(contents.run().has_value());
  const RunRecord& run = *contents.run();
  BOOST_TEST(run.grid == "TP 1");
  BOOST_CHECK(run.seed == written.run->seed);
  BOOST_CHECK(run.data == written.run->data);
  BOOST_CHECK(!run.packing && !run.global_batch);
  BOOST_CHECK(run.valid_fraction == 0.1);
  BOOST_CHECK(run.separate_documents == false);
  BOOST_TEST(run.tokenizer.to_string() == written.run->tokenizer.to_string());
  BOOST_TEST(run.configuration == R"({"steps":3})");
  // A run can't go on without its tensors.
  BOOST_CHECK_EXCEPTION(contents.expect_run_of(written.model), CheckpointError, says({"weights only"}));
}

BOOST_AUTO_TEST_CASE(attributes_of_another_type_are_damage) {
  for (const char* text : {R"({"step":1})", R"({"model_config":"{}","step":1})", "[]"})
    BOOST_CHECK_THROW(CheckpointAttributes::parse(text), std::exception);
  CheckpointAttributes good = attributes();
  const std::string text = good.to_json();
  BOOST_CHECK_NO_THROW(CheckpointAttributes::parse(text));
  for (const char* member : {R"("seed":-1)", R"("packing":2)", R"("valid_fraction":"0.1")",
                             R"("separate_documents":1)", R"("sequence":1.5)"})
    BOOST_CHECK_THROW(CheckpointAttributes::parse("{" + std::string(member) + "," + text.substr(1)),
                      JsonError);
}

BOOST_AUTO_TEST_CASE(changes_since_a_checkpoint_are_told) {
  const RunRecord before{.position = {},
                         .grid = {},
                         .seed = 1,
                         .sequence = 8,
                         .global_batch = 4,
                         .data = "identity",
                         .packing = {},
                         .valid_fraction = 0.0,
                         .separate_documents = true,
                         .tokenizer = {"a", "01"},
                         .configuration = R"({"steps":3,"load":"","seed":1,"learning-rate":"1e-4"})"};
  const std::vector<std::string_view> names{"steps", "learning-rate", "global-batch-size"};
  BOOST_TEST(changed_samples(before, before).empty());
  BOOST_TEST(changed_options(before, before, names).empty());
  RunRecord now = before;
  now.seed = 2;
  now.packing = "stream";  // an older version did not record it
  now.separate_documents = false;
  now.tokenizer.hash = "02";
  const auto samples = changed_samples(before, now);
  BOOST_TEST_REQUIRE(samples.size() == 3u);
  BOOST_TEST(samples[0].find("`data` was made with a (SHA-256 02...)") != std::string::npos, samples[0]);
  BOOST_TEST(samples[1].find("seed was 1 and is 2 now") != std::string::npos, samples[1]);
  BOOST_TEST(samples[2].find("separate_documents was true and is false") != std::string::npos, samples[2]);
  now.global_batch = 8;
  now.configuration = R"({"steps":5,"load":"folder","seed":1,"learning-rate":"0.0001"})";
  const auto options = changed_options(before, now, names);
  BOOST_TEST_REQUIRE(options.size() == 2u);
  BOOST_TEST(options[0].find("`load folder` is not what this run began with") != std::string::npos,
             options[0]);
  BOOST_TEST(options[1] ==
             "changed since the checkpoint: `steps` was 3 and is 5, `global_batch_size` was 4 and is 8");
}

BOOST_AUTO_TEST_SUITE_END()
