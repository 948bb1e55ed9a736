#include "comm/health/watchdog.hpp"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>

#include <atomic>
#include <boost/test/unit_test.hpp>
#include <mutex>
#include <set>

#include "comm/health/watched.hpp"
#include "comm/labels.hpp"
#include "support/mpi_fixture.hpp"

using namespace llama3d;
using namespace llama3d::test;

namespace {

using Kind = WatchdogMessage::Kind;

constexpr double for_ever = 100;

void pause(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

/// A rank with its watchdog, whose reports are kept. Collective.
class Watched {
 public:
  explicit Watched(WatchdogOptions options) {
    options.end = [this](const std::string& report) {
      const std::scoped_lock lock(mutex_);
      reports_.push_back(report);
    };
    watchdog_.emplace(plane_, options);
    watch_.emplace(&*watchdog_, log_.activity(), std::vector<Communicator*>{&communicator_});
  }
  Activity& activity() { return log_.activity(); }
  Activity& agreement() { return plane_.activity(); }
  FailingCommunicator& communicator() { return communicator_; }
  void stop() {
    watch_.reset();
    watchdog_.reset();
  }
  std::vector<std::string> reports() {
    const std::scoped_lock lock(mutex_);
    return reports_;
  }

 private:
  OwnControl plane_{control()};
  CommunicationLog log_;
  FailingCommunicator communicator_{log_};
  std::mutex mutex_;
  std::vector<std::string> reports_;
  std::optional<Watchdog> watchdog_;
  std::optional<Watch> watch_;
};

/// A rank without a watchdog that sends and receives as the test says. Collective, as Watched is.
struct Puppet {
  OwnControl plane{control()};
  std::vector<std::string> hosts = plane.all_gather(plane.host());
  Datagrams datagrams{plane, hosts};

  void ask(int rank) { datagrams.send(rank, WatchdogMessage{Kind::question, true, {}}.encode()); }
  /// The next message, waited for.
  std::optional<WatchdogMessage> next() {
    for (int i = 0; i < 500; ++i) {
      if (const auto received = datagrams.receive()) return WatchdogMessage::decode(received->text);
      pause(0.01);
    }
    return std::nullopt;
  }
};

/// Every rank's reports, "" for none, when some rank has one and `more` seconds later. Collective.
std::vector<std::string> all_reports(Watched* watched, double more) {
  const auto own = [&] { return watched ? watched->reports() : std::vector<std::string>(); };
  for (int i = 0; i < 1000 && control().all_max(std::ssize(own())) == 0; ++i) pause(0.01);
  pause(more);
  std::string joined;
  for (const auto& report : own()) joined += report;
  return control().all_gather(joined);
}

bool has_outer_address() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return false;
  bool found = false;
  for (const ifaddrs* one = list; one; one = one->ifa_next)
    found = found || (one->ifa_addr && one->ifa_addr->sa_family == AF_INET && (one->ifa_flags & IFF_UP) &&
                      !(one->ifa_flags & IFF_LOOPBACK));
  ::freeifaddrs(list);
  return found;
}

/// How many ranks' greetings reach this rank. Collective.
std::ptrdiff_t greeted_by(Datagrams& datagrams) {
  std::set<int> ranks;
  control().barrier();
  for (int rank = 0; rank < control().size(); ++rank) datagrams.send(rank, "hello");
  for (int i = 0; i < 100; ++i) {
    while (const auto received = datagrams.receive()) {
      BOOST_TEST(received->text == "hello");
      ranks.insert(received->rank);
    }
    pause(0.01);
  }
  control().barrier();
  return std::ssize(ranks);
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::string name_of_rank(int rank) {
  return fmt::format("rank {} (host {})", rank, control().host());  // all ranks of a test share it
}

}  // namespace

BOOST_AUTO_TEST_CASE(one_rank_reports_what_all_do) {
  const int last = control().size() - 1;
  Watched watched({.limit = 0.3, .patience_seconds = for_ever});
  control().barrier();
  const auto begin = std::chrono::steady_clock::now();
  watched.activity().at({12, control().rank() == last ? 3 : 4});
  if (control().rank() != last) watched.activity().enter(labels::tp_reduce_scatter_output);
  const auto reports = all_reports(&watched, 1);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  int reporters = 0;
  for (int rank = 0; rank <= last; ++rank) {
    const std::string& report = reports[static_cast<std::size_t>(rank)];
    if (report.empty()) continue;
    ++reporters;
    BOOST_TEST(rank != last);
    BOOST_TEST(
        report.starts_with("llama3d: error: no progress for 0.3 s (`comm_timeout`): " + name_of_rank(rank) +
                           " waits in tp.reduce_scatter.output, step 12, micro-batch 4\n"));
    for (int other = 0; other < last; ++other)
      BOOST_TEST(contains(report, name_of_rank(other) + ": waits in tp.reduce_scatter.output since 0."));
    BOOST_TEST(contains(report,
                        name_of_rank(last) +
                            ": in no communication (computing, or busy with files), step 12, micro-batch 3"));
    BOOST_TEST(!contains(report, "no answer"));
  }
  BOOST_TEST(reporters == 1);
  BOOST_TEST(seconds.count() >= 0.3);
}

BOOST_AUTO_TEST_CASE(an_agreement_between_hosts_counts_too) {
  Watched watched({.limit = 0.2, .patience_seconds = for_ever});
  watched.activity().at({7, -1});
  if (control().rank() == 0) watched.agreement().enter(labels::control_gather);
  const auto reports = all_reports(&watched, 0.3);
  BOOST_TEST(contains(reports[0], name_of_rank(0) + " waits in control.all_gather, step 7\n"));
  for (std::size_t rank = 1; rank < reports.size(); ++rank) BOOST_TEST(reports[rank].empty());
}

BOOST_AUTO_TEST_CASE(waits_below_the_limit_are_left_alone) {
  Watched watched({.limit = 2, .patience_seconds = 0});
  for (int i = 0; i < 8; ++i) {
    watched.activity().enter(labels::tp_loss);
    pause(0.3);
    watched.activity().leave();
    watched.agreement().enter(labels::control_max);
    watched.agreement().leave();
  }
  const auto begin = std::chrono::steady_clock::now();
  watched.stop();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  BOOST_TEST(seconds.count() < 0.5);
  for (const auto& report : control().all_gather(watched.reports().empty() ? "" : watched.reports()[0]))
    BOOST_TEST(report == "");
}

BOOST_AUTO_TEST_CASE(a_failed_communicator_ends_the_job_with_its_words) {
  const int last = control().size() - 1;
  Watched watched({.limit = for_ever, .patience_seconds = for_ever});
  watched.activity().at({3, 1});
  control().barrier();
  watched.communicator().fails = control().rank() == last;
  const auto reports = all_reports(&watched, 0.3);
  const std::string words = "unhandled system error: connection reset";
  BOOST_TEST(reports.back().starts_with("llama3d: error: " + name_of_rank(last) + ": " + words +
                                        ", step 3, micro-batch 1\n"));
  for (std::size_t rank = 0; rank + 1 < reports.size(); ++rank) BOOST_TEST(reports[rank].empty());
}

BOOST_AUTO_TEST_CASE(a_rank_that_asks_leaves_the_report_to_a_lower_one) {
  std::optional<Watched> watched;
  std::optional<Puppet> puppet;
  if (control().rank() == 0)
    puppet.emplace();
  else
    watched.emplace(WatchdogOptions{.limit = 0.2, .answer_seconds = 0.5, .patience_seconds = for_ever});
  control().barrier();
  if (watched) {
    watched->activity().at({5, 0});
    watched->activity().enter(labels::dp_reduce_gradients);
  } else {
    const auto question = puppet->next();
    BOOST_TEST_REQUIRE(question.has_value());
    BOOST_TEST((question->kind == Kind::question));
    for (int rank = 1; rank < control().size(); ++rank) puppet->ask(rank);
    std::optional<WatchdogMessage> answer;
    do answer = puppet->next();
    while (answer && answer->kind == Kind::question);
    BOOST_TEST_REQUIRE(answer.has_value());
    BOOST_TEST(answer->state.label == "dp.reduce_scatter.gradients");
    BOOST_TEST(answer->state.position.step == 5);
  }
  pause(1);
  for (const auto& report : control().all_gather(watched && !watched->reports().empty() ? "a report" : ""))
    BOOST_TEST(report == "");
}

BOOST_AUTO_TEST_CASE(a_rank_that_asks_does_not_wait_for_a_higher_one) {
  const int last = control().size() - 1;
  std::optional<Watched> watched;
  std::optional<Puppet> puppet;
  if (control().rank() == last)
    puppet.emplace();
  else
    watched.emplace(WatchdogOptions{.limit = 0.2, .answer_seconds = 0.5, .patience_seconds = for_ever});
  control().barrier();
  if (control().rank() == 0) watched->activity().enter(labels::dp_reduce_gradients);
  if (puppet) {
    BOOST_TEST(puppet->next().has_value());
    puppet->ask(0);
  }
  const auto reports = all_reports(watched ? &*watched : nullptr, 0.5);
  BOOST_TEST(contains(reports[0], name_of_rank(0) + ": waits in dp.reduce_scatter.gradients"));
  BOOST_TEST(contains(reports[0], name_of_rank(last) + ": no answer"));
  for (std::size_t rank = 1; rank < reports.size(); ++rank) BOOST_TEST(reports[rank].empty());
}

BOOST_AUTO_TEST_CASE(a_rank_that_asked_and_vanished_is_not_waited_for) {
  std::optional<Watched> watched;
  std::optional<Puppet> puppet;
  if (control().rank() == 0)
    puppet.emplace();
  else
    watched.emplace(WatchdogOptions{.limit = for_ever, .patience_seconds = 0.5});
  control().barrier();
  for (int rank = 1; puppet && rank < control().size(); ++rank) puppet->ask(rank);
  const auto reports = all_reports(watched ? &*watched : nullptr, 0.5);
  // They speak one after the other, as far as the machine keeps time; the first is enough.
  std::string all;
  for (const auto& report : reports) all += report;
  BOOST_TEST(contains(all, "the rank that asked did not end the job"));
  BOOST_TEST(contains(all, name_of_rank(0) + ": no answer"));
}

BOOST_AUTO_TEST_CASE(a_report_of_another_rank_is_not_repeated) {
  std::optional<Watched> watched;
  std::optional<Puppet> puppet;
  if (control().rank() == control().size() - 1)
    puppet.emplace();
  else
    watched.emplace(WatchdogOptions{.limit = 0.2, .answer_seconds = 1, .patience_seconds = 0.5});
  control().barrier();
  if (watched) watched->activity().enter(labels::pp_activation);
  if (puppet) {
    BOOST_TEST(puppet->next().has_value());
    for (int rank = 0; rank + 1 < control().size(); ++rank)
      puppet->datagrams.send(rank, WatchdogMessage{Kind::report, true, {}}.encode());
  }
  pause(1.5);
  // Each still ends the job in its turn.
  if (watched) BOOST_TEST((watched->reports() == std::vector<std::string>{""}));
  control().barrier();
}

BOOST_AUTO_TEST_CASE(datagrams_of_others_are_dropped) {
  OwnControl plane(control());
  const std::vector<std::string> hosts = plane.all_gather(plane.host());
  Datagrams ours(plane, hosts), foreign(plane, hosts);
  Datagrams::Received place;
  place.from.sin_family = AF_INET;
  place.from.sin_port = htons(ours.port());
  place.from.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  foreign.answer(place, "?");
  const int plain = ::socket(AF_INET, SOCK_DGRAM, 0);
  for (const std::size_t bytes : {0, 1, 20, 25, 3000}) {
    const std::string text(bytes, '?');
    BOOST_TEST(::sendto(plain, text.data(), bytes, 0, reinterpret_cast<const sockaddr*>(&place.from),
                        sizeof place.from) == static_cast<ssize_t>(bytes));
  }
  ::close(plain);
  pause(0.2);
  BOOST_TEST(!ours.receive());
  // What is ours comes, from every rank.
  BOOST_TEST(greeted_by(ours) == control().size());
}

BOOST_AUTO_TEST_CASE(other_hosts_are_reached_by_their_addresses) {
  OwnControl plane(control());
  const auto hosts = plane.all_gather("host" + std::to_string(control().rank()));
  Datagrams datagrams(plane, hosts);
  // A rank itself is on its own host.
  BOOST_TEST(greeted_by(datagrams) == (has_outer_address() ? control().size() : 1));
}
