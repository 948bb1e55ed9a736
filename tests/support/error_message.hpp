#pragma once
// Predicate for BOOST_CHECK_EXCEPTION: the message is one line and contains all of these words.

#include <boost/test/unit_test.hpp>
#include <exception>
#include <initializer_list>
#include <string>
#include <vector>

namespace llama3d::test {

inline auto says(std::initializer_list<std::string> words) {
  return [words = std::vector<std::string>(words)](const std::exception& error) {
    const std::string message = error.what();
    bool all = message.find('\n') == std::string::npos;
    for (const std::string& word : words) all = all && message.find(word) != std::string::npos;
    if (!all) BOOST_TEST_MESSAGE("message was: " << message);
    return all;
  };
}

}  // namespace llama3d::test
