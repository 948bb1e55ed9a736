#include "io/checkpoint/convert.hpp"

#include <boost/test/unit_test.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "io/posix/posix_file.hpp"

using namespace llama3d;

BOOST_AUTO_TEST_SUITE(convert)

BOOST_AUTO_TEST_CASE(fp16_is_exact) {
  // Values from the definition of binary16: exponent bias 15, 10 bits of fraction.
  BOOST_TEST(io::float_of_fp16(0x3c00) == 1.0f);
  BOOST_TEST(io::float_of_fp16(0xc000) == -2.0f);
  BOOST_TEST(io::float_of_fp16(0x7bff) == 65504.0f);
  BOOST_TEST(io::float_of_fp16(0x0001) == std::ldexp(1.0f, -24));
  BOOST_TEST(io::float_of_fp16(0x83ff) == -std::ldexp(1023.0f, -24));
  BOOST_TEST(std::signbit(io::float_of_fp16(0x8000)));
  BOOST_TEST(io::float_of_fp16(0x7c00) == std::numeric_limits<float>::infinity());
  BOOST_TEST(std::isnan(io::float_of_fp16(0x7e00)));
}

BOOST_AUTO_TEST_CASE(fp16_becomes_the_nearest_bf16) {
  // Every finite binary16 number: none of the two neighbours is nearer, and of two as near it is the even
  // one.
  for (std::uint32_t i = 0; i < 0x10000; ++i) {
    const auto half = static_cast<std::uint16_t>(i);
    const float exact = io::float_of_fp16(half);
    if (!std::isfinite(exact)) continue;
    bf16 rounded;
    io::convert_elements(&half, io::StoredType::fp16, &rounded, DType::bf16, 1);
    float same = 0;
    io::convert_elements(&half, io::StoredType::fp16, &same, DType::fp32, 1);
    BOOST_REQUIRE_EQUAL(same, exact);
    const double error = std::abs(static_cast<double>(static_cast<float>(rounded)) - exact);
    for (const int step : {-1, 1}) {
      bf16 neighbour;
      neighbour.bits = static_cast<std::uint16_t>(rounded.bits + step);
      const double other = std::abs(static_cast<double>(static_cast<float>(neighbour)) - exact);
      if ((rounded.bits & 0x7fffu) != 0)
        BOOST_REQUIRE(error < other || (error == other && rounded.bits % 2 == 0));
    }
  }
}

BOOST_AUTO_TEST_CASE(narrowing_rounds_to_nearest_even) {
  // bf16 has 8 significant bits: 1 + 2^-8 lies half way between 1 and 1 + 2^-7 and goes to the even 1.
  const std::vector<float> from = {1.0f, 1.0f + 0x1p-8f, 1.0f + 0x3p-8f, -3.140625f};
  std::vector<bf16> to(from.size());
  io::convert_elements(from.data(), DType::fp32, to.data(), DType::bf16, from.size());
  BOOST_TEST(static_cast<float>(to[0]) == 1.0f);
  BOOST_TEST(static_cast<float>(to[1]) == 1.0f);
  BOOST_TEST(static_cast<float>(to[2]) == 1.0f + 0x4p-8f);
  BOOST_TEST(static_cast<float>(to[3]) == -3.140625f);
  std::vector<double> back(from.size());
  io::convert_elements(to.data(), DType::bf16, back.data(), DType::fp64, from.size());
  BOOST_TEST(back[3] == -3.140625);
}

BOOST_AUTO_TEST_CASE(integers_and_floats_do_not_mix) {
  std::int32_t from = 1;
  float to = 0;
  BOOST_CHECK_THROW(io::convert_elements(&from, DType::int32, &to, DType::fp32, 1), io::IoError);
  BOOST_CHECK_THROW(io::convert_elements(&to, DType::fp32, &from, DType::int32, 1), io::IoError);
}

BOOST_AUTO_TEST_SUITE_END()
