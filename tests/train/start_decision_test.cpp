// How a run starts, by what is in its folders: headers alone are read, so small checkpoints of zeros stand
// for real ones.
#include "train/start_decision.hpp"

#include <boost/test/unit_test.hpp>
#include <fstream>

#include "comm/failure.hpp"
#include "support/error_message.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using test::says;
namespace fs = std::filesystem;
using Kind = StartDecision::Kind;

namespace {

ModelConfig small_model(std::int64_t layers = 1) {
  ModelConfig model = load_model_config("llama3-tiny");
  model.vocabulary = 16;
  model.hidden = 8;
  model.feed_forward = 8;
  model.layers = layers;
  model.query_heads = 1;
  model.key_value_heads = 1;
  model.head_dim = 8;
  return model;
}

struct Run : test::TemporaryFolder {
  TrainSettings settings;

  Run() {
    settings.output_dir = (*this / "own").string();
    settings.steps = 100;
  }

  /// A whole checkpoint, or one that an import made.
  fs::path add(const fs::path& run, std::int64_t step, const ModelConfig& model = small_model(),
               bool trained = true) {
    const fs::path folder = run / "checkpoints" / checkpoint_folder_name(step);
    fs::create_directories(folder.parent_path());
    const fs::path temporary = begin_checkpoint(folder);
    RankFileWriter file(temporary, 0);
    std::vector<std::string> groups = {"/model/"};
    if (trained) groups.insert(groups.end(), {"/optimizer/exp_avg/", "/optimizer/exp_avg_sq/"});
    for (const std::string& group : groups)
      for (const WeightTensor& tensor : model_tensors(model)) {
        const Rectangle all{0, tensor.shape[0], 0, tensor.shape.size() > 1 ? tensor.shape[1] : 1};
        const std::vector<float> zeros(static_cast<std::size_t>(all.elements()));
        file.write({group + tensor.name, DType::fp32, tensor.shape, {all}, zeros.data()});
      }
    CheckpointAttributes attributes{.model = model, .origin = {}, .run = {}};
    if (trained) {
      attributes.run.emplace();
      attributes.run->position = {.step = step, .consumed_samples = 2 * step, .tokens = 8 * step};
    }
    write_global_view(temporary, {file.finish()}, attributes.to_json());
    commit_checkpoint(temporary, folder);
    return folder;
  }
  fs::path own() const { return settings.output_dir; }
  StartDecision decide(const std::string& resume = "", const std::string& load = "") {
    settings.resume = resume;
    settings.load = load;
    return decide_start(settings);
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(start_decision, Run)

BOOST_AUTO_TEST_CASE(without_options_a_run_is_fresh_whatever_is_in_its_folder) {
  add(own(), 5);
  const StartDecision start = decide();
  BOOST_CHECK(start.kind == Kind::fresh);
  BOOST_TEST(!start.in_place());
  BOOST_TEST(start.folders.empty());
  BOOST_TEST(start.model.name == "llama3-tiny");
}

BOOST_AUTO_TEST_CASE(weights_to_load_give_the_model) {
  const fs::path weights = add(*this / "other", 5, small_model(), false);
  const StartDecision start = decide("", weights);
  BOOST_CHECK(start.kind == Kind::load);
  BOOST_TEST(!start.in_place());
  BOOST_TEST_REQUIRE(start.folders.size() == 1u);
  BOOST_TEST(start.folders[0] == weights);
  BOOST_TEST(differences(start.model, small_model()).empty());
  settings.model = "llama3-tiny";
  BOOST_CHECK_EXCEPTION(decide("", weights), ConfigurationError, says({"of another model"}));
}

BOOST_AUTO_TEST_CASE(the_newest_checkpoint_goes_on_and_older_ones_stand_in) {
  for (const std::int64_t step : {2, 4, 6}) add(own(), step);
  fs::remove(own() / "checkpoints/step_00000006/checkpoint.h5");
  const StartDecision start = decide("auto", "what it started from is gone");
  BOOST_CHECK(start.kind == Kind::resume);
  BOOST_TEST(start.in_place());
  BOOST_TEST_REQUIRE(start.folders.size() == 2u);
  BOOST_TEST(checkpoint_step(start.folders[0]) == 4);
  BOOST_TEST(checkpoint_step(start.folders[1]) == 2);
  BOOST_TEST_REQUIRE(start.checkpoint != nullptr);
  BOOST_TEST(start.checkpoint->position().consumed_samples == 8);
  BOOST_TEST_REQUIRE(start.notes.size() == 1u);
  BOOST_TEST(start.notes[0].find("skipping a checkpoint that can't be loaded") != std::string::npos);
  BOOST_TEST(start.notes[0].find("step_00000006") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(an_automatic_start_without_checkpoints_is_a_new_run_in_place) {
  StartDecision start = decide("auto");
  BOOST_CHECK(start.kind == Kind::fresh);
  BOOST_TEST(start.in_place());
  BOOST_TEST_REQUIRE(start.notes.size() == 1u);
  BOOST_TEST(start.notes[0].find("starting anew") != std::string::npos);
  start = decide("auto", add(*this / "other", 5));
  BOOST_CHECK(start.kind == Kind::load);
  BOOST_TEST(start.in_place());
}

BOOST_AUTO_TEST_CASE(a_folder_of_damaged_ones_alone_is_refused) {
  fs::create_directories(own() / "checkpoints/step_00000001");
  fs::create_directories(own() / "checkpoints/step_00000002");
  BOOST_CHECK_EXCEPTION(decide("auto"), CheckpointError,
                        says({"`resume` auto: none of the checkpoints", "step_00000001"}));
}

// An older one of the same folder would be wrong too.
BOOST_AUTO_TEST_CASE(another_model_s_checkpoint_ends_the_search) {
  add(own(), 1);
  add(own(), 2, small_model(2));
  settings.model = "llama3-tiny";
  BOOST_CHECK_EXCEPTION(decide("auto"), ConfigurationError, says({"step_00000002", "of another model"}));
}

BOOST_AUTO_TEST_CASE(a_checkpoint_by_its_name_is_the_run_s_own_or_another_s) {
  const fs::path here = add(own(), 2), there = add(*this / "other", 4);
  StartDecision start = decide(here);
  BOOST_CHECK(start.kind == Kind::resume);
  BOOST_TEST(start.in_place());
  start = decide(there);
  BOOST_CHECK(start.kind == Kind::resume_elsewhere);
  BOOST_TEST(!start.in_place());
  BOOST_TEST(start.checkpoint->position().step == 4);
  // By another name it is the same one.
  fs::create_directory_symlink(own(), *this / "alias");
  BOOST_CHECK(decide(*this / "alias/checkpoints/step_00000002").kind == Kind::resume);
  settings.steps = 4;
  BOOST_CHECK_EXCEPTION(decide(there), ConfigurationError, says({"`steps 4`", "is at step 4 already"}));
}

BOOST_AUTO_TEST_CASE(weights_alone_are_no_run) {
  const fs::path weights = add(*this / "other", 5, small_model(), false);
  BOOST_CHECK_EXCEPTION(decide(weights), CheckpointError, says({"weights only", "`load`"}));
}

BOOST_AUTO_TEST_CASE(every_rank_gets_the_decision) {
  add(own(), 2);
  settings.resume = "auto";
  const auto control = make_local_control_plane();
  const StartDecision start = agreed_start(settings, *control);
  BOOST_CHECK(start.kind == Kind::resume);
  BOOST_TEST(start.folders.size() == 1u);
  BOOST_TEST(differences(start.model, small_model()).empty());
  BOOST_TEST(start.model.name == start.folders[0].string());
}

BOOST_AUTO_TEST_SUITE_END()
