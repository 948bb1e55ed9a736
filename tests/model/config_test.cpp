#include "model/config.hpp"

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.hpp"
#include "model/presets.hpp"
#include "support/error_message.hpp"
#include "support/temporary_folder.hpp"

namespace fs = std::filesystem;
using namespace llama3d;
using llama3d::test::says;
using nlohmann::json;

namespace {

/// A small valid config.json in the form of transformers 4.
json small() {
  return json::parse(R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 259,
    "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 4, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "rope_scaling": null, "hidden_act": "silu", "attention_bias": false, "tie_word_embeddings": false})");
}

json llama3_rope() {
  return {{"rope_type", "llama3"},
          {"factor", 32.0},
          {"low_freq_factor", 1.0},
          {"high_freq_factor", 4.0},
          {"original_max_position_embeddings", 8192}};
}

ModelConfig parse(const json& document) {
  return parse_model_config(document.dump(), "here.json");
}

json with(const char* key, const json& value) {
  json document = small();
  document[key] = value;
  return document;
}

}  // namespace

// Published totals of Meta's weights, counted over the tensors of the released files.
BOOST_AUTO_TEST_CASE(parameters_of_known_models) {
  const std::vector<std::pair<std::string, std::int64_t>> known = {
      {"llama3-8b", 8'030'261'248},     {"llama3.1-8b", 8'030'261'248},     {"llama3-70b", 70'553'706'496},
      {"llama3.1-70b", 70'553'706'496}, {"llama3.1-405b", 405'853'388'800}, {"llama3.2-1b", 1'235'814'400},
      {"llama3.2-3b", 3'212'749'824}};
  for (const auto& [name, total] : known) {
    const ModelConfig config = load_model_config(name);
    BOOST_TEST(config.parameters() == total, name << " has " << config.parameters());
    ModelConfig other = config;
    other.layers += 1;
    BOOST_TEST(other.parameters() != total);
  }
}

BOOST_AUTO_TEST_CASE(parameters_by_hand) {
  // hidden 128, 8 query and 4 key-value heads of 16, feed-forward 352, 4 layers, vocabulary 259.
  ModelConfig config = load_model_config("llama3-tiny");
  const std::int64_t layer = 128 * 128 + 2 * 128 * 64 + 128 * 128 + 3 * 128 * 352;
  BOOST_TEST(config.matrix_parameters() == 4 * layer + 259 * 128);
  BOOST_TEST(config.parameters() == 4 * (layer + 2 * 128) + 128 + 2 * 259 * 128);
  BOOST_TEST(config.training_flops_per_token(64) ==
             6.0 * static_cast<double>(4 * layer + 259 * 128) + 6.0 * 4 * 8 * 16 * 64);
  const std::int64_t untied = config.parameters();
  config.tied_embeddings = true;
  BOOST_TEST(config.parameters() == untied - 259 * 128);
  BOOST_TEST(config.matrix_parameters() == 4 * layer + 259 * 128);
}

BOOST_AUTO_TEST_CASE(small_presets_fit_their_purpose) {
  const ModelConfig tiny = load_model_config("llama3-tiny");
  for (const std::int64_t size : {tiny.key_value_heads, tiny.feed_forward})
    BOOST_TEST(size % 4 == 0);  // TP 4
  const ModelConfig middle = load_model_config("llama3-25m");
  BOOST_TEST(tiny.parameters() == 804'736);  // both as jobs/presets/README.md says
  BOOST_TEST(middle.parameters() == 25'439'744);
  BOOST_TEST(middle.vocabulary == 259);
}

BOOST_AUTO_TEST_CASE(every_preset_file_is_embedded_as_it_is) {
  std::set<std::string> files;
  for (const auto& entry : fs::directory_iterator(PRESET_FOLDER))
    if (entry.path().extension() == ".json") files.insert(entry.path().filename().string());
  const auto names = preset_names();
  BOOST_TEST(files.size() == names.size());
  BOOST_TEST(names.size() >= 9u);
  for (const std::string& name : names) {
    std::ifstream file(fs::path(PRESET_FOLDER) / (name + ".json"));
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    BOOST_TEST(std::string(find_preset(name)->json) == text, name);
    const ModelConfig config = load_model_config(name);
    BOOST_TEST(config.name == name);
    BOOST_TEST(config.norm_epsilon == 1e-5);
    BOOST_TEST(config.rope_scaling.has_value() == (name.find("3.") != std::string::npos), name);
  }
}

BOOST_AUTO_TEST_CASE(values_of_a_preset) {
  ModelConfig expected;
  expected.name = "llama3.2-1b";
  expected.vocabulary = 128256;
  expected.hidden = 2048;
  expected.feed_forward = 8192;
  expected.layers = 16;
  expected.query_heads = 32;
  expected.key_value_heads = 8;
  expected.head_dim = 64;
  expected.max_positions = 131072;
  expected.rope_theta = 500000;
  expected.rope_scaling = RopeScaling{32, 1, 4, 8192};
  expected.tied_embeddings = true;
  BOOST_TEST((load_model_config("llama3.2-1b") == expected));
  expected.rope_scaling->factor = 8;
  BOOST_TEST((load_model_config("llama3.2-1b") != expected));
}

BOOST_AUTO_TEST_CASE(both_forms_of_rope_agree) {
  json four = with("rope_scaling", llama3_rope());
  json five = small();
  five.erase("rope_theta");
  five.erase("rope_scaling");
  five["rope_parameters"] = llama3_rope();
  five["rope_parameters"]["rope_theta"] = 500000.0;
  BOOST_TEST((parse(four) == parse(five)));
  BOOST_TEST((parse(five).rope_scaling == RopeScaling{32, 1, 4, 8192}));
  five["rope_parameters"]["rope_theta"] = 10000;
  BOOST_TEST((parse(four) != parse(five)));

  json plain = small();
  plain.erase("rope_scaling");
  plain.erase("rope_theta");
  plain["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 500000.0}};
  BOOST_TEST((parse(plain) == parse(small())));
  BOOST_TEST((parse(with("rope_scaling", {{"type", "default"}})) == parse(small())));
}

BOOST_AUTO_TEST_CASE(absent_keys_mean_what_they_mean_to_transformers) {
  json document = small();
  for (const char* key : {"rope_theta", "rms_norm_eps", "num_key_value_heads", "max_position_embeddings",
                          "hidden_act", "attention_bias", "tie_word_embeddings", "architectures"})
    document.erase(key);
  const ModelConfig config = parse(document);
  BOOST_TEST(config.rope_theta == 10000);
  BOOST_TEST(config.norm_epsilon == 1e-6);
  BOOST_TEST(config.key_value_heads == 8);
  BOOST_TEST(config.max_positions == 2048);
  BOOST_TEST(config.head_dim == 16);
  BOOST_TEST(!config.tied_embeddings);
  BOOST_TEST(parse(with("head_dim", 32)).head_dim == 32);  // need not be hidden / heads
  BOOST_TEST(parse(with("head_dim", nullptr)).head_dim == 16);
}

BOOST_AUTO_TEST_CASE(written_config_reads_back) {
  for (const std::string& name : preset_names()) {
    const ModelConfig config = load_model_config(name);
    const std::string text = to_json(config);
    ModelConfig back = parse_model_config(text, "written");
    back.name = name;
    BOOST_TEST((back == config), name);
    BOOST_TEST(json::parse(text)["architectures"] == json::array({"LlamaForCausalLM"}));
    BOOST_TEST(json::parse(text)["model_type"] == "llama");
  }
}

BOOST_AUTO_TEST_CASE(other_models_are_refused) {
  const std::vector<std::tuple<const char*, json, std::string>> wrong = {
      {"model_type", "gpt2", "\"llama\" or \"mistral\" or \"qwen2\" or \"qwen3\""},
      {"architectures", {"LlamaForSequenceClassification", "x"}, "LlamaForCausalLM"},
      {"hidden_act", "gelu", "\"silu\""},
      {"attention_bias", true, "false"},
      {"mlp_bias", true, "false"},
      {"quantization_config", {{"quant_method", "fbgemm_fp8"}}, "absent"},
      {"num_key_value_heads", 3, "divisor of num_attention_heads, 8"},
      {"head_dim", 15, "even"},
      {"hidden_size", 129, "multiple of num_attention_heads, 8"},
      {"num_hidden_layers", 0, "from 1"},
      {"vocab_size", -1, "from 1"},
      {"intermediate_size", 18446744073709551615u, "from 1"},
      {"rope_theta", 0, "above 0"},
      {"rms_norm_eps", -1e-5, "above 0"},
  };
  for (const auto& [key, value, right] : wrong)
    BOOST_CHECK_EXCEPTION(parse(with(key, value)), ConfigurationError,
                          says({"here.json", key, value.dump().substr(0, 50), right}));
  BOOST_CHECK_NO_THROW(parse(small()));
}

namespace {

/// A config.json of another architecture, with these members more.
json of_type(const char* type, const char* class_name, const json& more = json::object()) {
  json document = with("model_type", type);
  document["architectures"] = {class_name};
  document.update(more);
  return document;
}
json mistral(const json& more) {
  return of_type("mistral", "MistralForCausalLM", more);
}

}  // namespace

BOOST_AUTO_TEST_CASE(architectures_are_told_by_their_type) {
  const ModelConfig llama = parse(small()), qwen2 = parse(of_type("qwen2", "Qwen2ForCausalLM")),
                    qwen3 = parse(of_type("qwen3", "Qwen3ForCausalLM", {{"head_dim", 16}})),
                    without_window = parse(mistral({{"sliding_window", nullptr}}));
  BOOST_TEST((!llama.architecture->qkv_bias && !llama.architecture->head_norm));
  BOOST_TEST((qwen2.architecture->qkv_bias && !qwen2.architecture->head_norm));
  BOOST_TEST((!qwen3.architecture->qkv_bias && qwen3.architecture->head_norm));
  BOOST_TEST((!without_window.architecture->qkv_bias && !without_window.architecture->head_norm));
  const std::int64_t layers = llama.layers;
  BOOST_TEST(qwen2.parameters() ==
             llama.parameters() + layers * (llama.query_heads + 2 * llama.key_value_heads) * llama.head_dim);
  BOOST_TEST(qwen3.parameters() == llama.parameters() + layers * 2 * llama.head_dim);
  for (const ModelConfig& config : {qwen2, qwen3, without_window}) {
    ModelConfig back = parse_model_config(to_json(config), "written");
    back.name = config.name;
    BOOST_TEST((back == config));
    const auto found = differences(config, llama);
    BOOST_TEST(std::any_of(found.begin(), found.end(), [](const ConfigDifference& difference) {
      return difference.key == "model_type" && difference.decides_tensors;
    }));
  }
}

BOOST_AUTO_TEST_CASE(absent_keys_have_the_defaults_of_their_architecture) {
  json document = of_type("qwen3", "Qwen3ForCausalLM", {{"num_attention_heads", 32}});
  for (const char* key : {"num_key_value_heads", "head_dim", "max_position_embeddings"}) document.erase(key);
  const ModelConfig qwen3 = parse(document);
  BOOST_TEST(qwen3.key_value_heads == 32);
  BOOST_TEST(qwen3.head_dim == 128);
  BOOST_TEST(qwen3.max_positions == 32768);
  document = mistral({{"sliding_window", nullptr}});
  for (const char* key : {"num_key_value_heads", "max_position_embeddings"}) document.erase(key);
  BOOST_TEST(parse(document).key_value_heads == 8);
  BOOST_TEST(parse(document).max_positions == 131072);
}

BOOST_AUTO_TEST_CASE(a_sliding_window_is_refused) {
  const auto refused = [](const json& document, const std::string& key) {
    BOOST_CHECK_EXCEPTION(parse(document), ConfigurationError, says({"here.json", key, "sliding window"}));
  };
  refused(mistral({{"sliding_window", 4096}, {"max_position_embeddings", 32768}}), "sliding_window is 4096");
  // Silence means 4096 tokens to transformers.
  refused(mistral({{"max_position_embeddings", 32768}}), "sliding_window is 4096");
  BOOST_TEST(parse(mistral({{"max_position_embeddings", 4096}})).max_positions == 4096);
  for (const auto& [type, class_name] :
       {std::pair{"qwen2", "Qwen2ForCausalLM"}, {"qwen3", "Qwen3ForCausalLM"}}) {
    refused(of_type(type, class_name, {{"use_sliding_window", true}, {"sliding_window", 64}}),
            "use_sliding_window");
    BOOST_CHECK_NO_THROW(parse(of_type(type, class_name, {{"sliding_window", 64}})));
    BOOST_CHECK_EXCEPTION(
        parse(of_type(type, class_name, {{"layer_types", {"full_attention", "sliding_attention"}}})),
        ConfigurationError, says({"layer_types", "full_attention"}));
  }
  BOOST_CHECK_EXCEPTION(parse(of_type("qwen3", "Qwen3ForCausalLM", {{"attention_bias", true}})),
                        ConfigurationError, says({"attention_bias", "false"}));
}

BOOST_AUTO_TEST_CASE(other_rope_is_refused) {
  const auto scaling_with = [](const char* key, const json& value) {
    json scaling = llama3_rope();
    scaling[key] = value;
    return with("rope_scaling", scaling);
  };
  BOOST_CHECK_EXCEPTION(parse(scaling_with("rope_type", "yarn")), ConfigurationError,
                        says({"rope_scaling.rope_type", "\"yarn\"", "llama3"}));
  BOOST_CHECK_EXCEPTION(parse(with("rope_scaling", {{"type", "linear"}, {"factor", 2}})), ConfigurationError,
                        says({"rope_scaling.type", "\"linear\""}));
  BOOST_CHECK_EXCEPTION(parse(scaling_with("factor", 0.5)), ConfigurationError,
                        says({"rope_scaling.factor", "0.5", "at least 1"}));
  BOOST_CHECK_EXCEPTION(parse(scaling_with("high_freq_factor", 1)), ConfigurationError,
                        says({"rope_scaling.high_freq_factor", "low_freq_factor"}));
  BOOST_CHECK_EXCEPTION(parse(scaling_with("partial_rotary_factor", 0.5)), ConfigurationError,
                        says({"rope_scaling.partial_rotary_factor", "0.5"}));
  BOOST_CHECK_EXCEPTION(parse(scaling_with("original_max_position_embeddings", nullptr)), DataError,
                        says({"rope_scaling.original_max_position_embeddings", "missing"}));
  BOOST_CHECK_EXCEPTION(parse(with("rope_parameters", {{"rope_theta", 10000}})), ConfigurationError,
                        says({"rope_parameters.rope_theta", "500000"}));
  json contradiction = with("rope_scaling", llama3_rope());
  contradiction["rope_parameters"] = {{"rope_theta", 500000}};
  BOOST_CHECK_EXCEPTION(parse(contradiction), ConfigurationError, says({"rope_scaling", "the same"}));
}

BOOST_AUTO_TEST_CASE(nonsensical_sizes_do_not_overflow) {
  json document = small();
  for (const char* key : {"hidden_size", "intermediate_size", "vocab_size"}) document[key] = 2147483632;
  document["num_hidden_layers"] = 10'000;
  BOOST_CHECK_EXCEPTION(parse(document), ConfigurationError, says({"here.json", "parameters", "1e+15"}));
}

BOOST_AUTO_TEST_CASE(implausibly_many_layers_are_refused) {
  BOOST_TEST(parse(with("num_hidden_layers", 10'000)).layers == 10'000);
  for (const std::int64_t layers : {10'001, 1'000'000'000})
    BOOST_CHECK_EXCEPTION(parse(with("num_hidden_layers", layers)), ConfigurationError,
                          says({"here.json", "num_hidden_layers", std::to_string(layers), "at most 10000"}));
}

BOOST_AUTO_TEST_CASE(broken_files_are_data_errors) {
  const std::vector<std::tuple<const char*, json, std::string>> wrong_types = {
      {"hidden_size", "128", "an integer"},
      {"hidden_size", 128.5, "an integer"},
      {"rope_theta", "1e4", "a number"},
      {"tie_word_embeddings", 1, "true or false"},
      {"rope_scaling", "llama3", "an object"},
      {"model_type", 3, "a string"},
      {"num_hidden_layers", json::array({4}), "an integer"},
  };
  for (const auto& [key, value, right] : wrong_types)
    BOOST_CHECK_EXCEPTION(parse(with(key, value)), DataError, says({"here.json", key, value.dump(), right}));

  for (const char* key : {"model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads"}) {
    json document = small();
    document.erase(key);
    BOOST_CHECK_EXCEPTION(parse(document), DataError, says({"here.json", key, "missing"}));
  }
  const std::string whole = small().dump(2);
  for (std::size_t length = 0; length < whole.size(); length += 37)
    BOOST_CHECK_EXCEPTION(parse_model_config(whole.substr(0, length), "here.json"), DataError,
                          says({"here.json", "no valid JSON"}));
  BOOST_CHECK_EXCEPTION(parse_model_config("[1]", "here.json"), DataError, says({"JSON array"}));
  BOOST_CHECK_EXCEPTION(parse_model_config("{\"a\xff\": 1}", "here.json"), DataError,
                        says({"no valid JSON"}));
}

BOOST_AUTO_TEST_CASE(files_and_folders) {
  const test::TemporaryFolder folder;
  const fs::path file = folder.write("model/config.json", small().dump());
  const ModelConfig config = load_model_config(file.string());
  BOOST_TEST(config.name == file.string());
  BOOST_TEST((load_model_config((folder.path() / "model").string()) == config));
  BOOST_TEST(config.hidden == 128);

  BOOST_CHECK_EXCEPTION(load_model_config(folder.path().string()), DataError,
                        says({"config.json", "missing"}));
  BOOST_CHECK_EXCEPTION(load_model_config((folder.path() / "none").string()), DataError,
                        says({"none", "missing"}));
  BOOST_CHECK_EXCEPTION(load_model_config("none.json"), DataError, says({"none.json", "missing"}));
  const fs::path cut = folder.write("cut.json", small().dump().substr(0, 100));
  BOOST_CHECK_EXCEPTION(load_model_config(cut.string()), DataError, says({"cut.json", "cut short"}));
}

BOOST_AUTO_TEST_CASE(files_of_strangers) {
  const test::TemporaryFolder folder;
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']'), text = small().dump();
  const auto is_short = [](const std::exception& error) { return std::string(error.what()).size() < 600; };
  const std::pair<std::string, const char*> wrong[] = {
      {deep, "nested more than 64 deep"},
      {"1e999", "number overflow"},
      {"1e30", "vocab_size is 1e+30"},
      {'"' + std::string(100'000, 'x') + '"', "vocab_size is \"xx"}};
  for (const auto& [value, reason] : wrong) {
    const std::string last = text.substr(0, text.size() - 1) + R"(,"vocab_size":)" + value + "}";
    BOOST_CHECK_EXCEPTION(parse_model_config(last, "here.json"), DataError, says({"here.json", reason}));
    BOOST_CHECK_EXCEPTION(parse_model_config(last, "here.json"), DataError, is_short);
  }
  folder.write("outside.json", text);
  fs::create_directory(folder / "model");
  fs::create_symlink("../outside.json", folder / "model/config.json");
  BOOST_CHECK_EXCEPTION(load_model_config((folder / "model").string()), DataError,
                        says({"outside the folder"}));
  // Whoever names the file itself means what it links to.
  BOOST_CHECK_NO_THROW(load_model_config((folder / "model/config.json").string()));
  BOOST_CHECK_EXCEPTION(load_model_config("/dev/zero"), DataError, says({"/dev/zero", "more than"}));
}

BOOST_AUTO_TEST_CASE(misspelt_presets_get_suggestions) {
  const auto nearest = nearest_presets("llama3-8", 3);
  BOOST_REQUIRE(!nearest.empty());
  BOOST_TEST(nearest.front() == "llama3-8b");
  BOOST_CHECK_EXCEPTION(load_model_config("llama-3.2-1b"), ConfigurationError,
                        says({"\"llama-3.2-1b\"", "did you mean llama3.2-1b"}));
  BOOST_CHECK_EXCEPTION(load_model_config("Llama3-Tiny"), ConfigurationError,
                        says({"did you mean llama3-tiny"}));
  BOOST_CHECK_EXCEPTION(load_model_config("gpt2"), ConfigurationError,
                        says({"presets are", "llama3-8b", "llama3.1-405b"}));
  BOOST_CHECK_EXCEPTION(load_model_config(""), ConfigurationError, says({"presets are"}));
}

BOOST_AUTO_TEST_CASE(edit_distances) {
  BOOST_TEST(edit_distance("kitten", "sitting") == 3u);
  BOOST_TEST(edit_distance("", "abc") == 3u);
  BOOST_TEST(edit_distance("abc", "") == 3u);
  BOOST_TEST(edit_distance("Same", "sAME") == 0u);
}

BOOST_AUTO_TEST_CASE(deeply_nested_files_are_refused) {
  const std::string nested = "{\"model_type\":" + std::string(200'000, '[');
  BOOST_CHECK_EXCEPTION(parse_model_config(nested + std::string(200'000, ']') + "}", "deep.json"), DataError,
                        says({"deep.json", "nested"}));
}

BOOST_AUTO_TEST_CASE(differences_are_named_by_key) {
  const ModelConfig model = load_model_config("llama3.2-1b");
  BOOST_TEST(differences(model, model).empty());
  ModelConfig other = model;
  other.name = "another name";
  BOOST_TEST(differences(model, other).empty());
  other.layers = 17;
  other.rope_theta = 10000;
  other.rope_scaling.reset();
  const auto found = differences(model, other);
  BOOST_REQUIRE_EQUAL(found.size(), 3u);
  const auto named = [&](const std::string& key) {
    return *std::find_if(found.begin(), found.end(), [&](const auto& d) { return d.key == key; });
  };
  BOOST_TEST(named("num_hidden_layers").decides_tensors);
  BOOST_TEST(named("num_hidden_layers").left == "16");
  BOOST_TEST(named("num_hidden_layers").right == "17");
  BOOST_TEST(!named("rope_theta").decides_tensors);
  BOOST_TEST(named("rope_scaling").right == "null");
}
