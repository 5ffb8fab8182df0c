#include "processors.h"

#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>
#include <string_view>
#include <thread>

namespace surprisal {
namespace {

int allowed_processors() {
#ifdef __linux__
  // The kernel refuses a set that is smaller than its own.
  for (size_t processors = 1024; processors <= size_t{1} << 20; processors *= 2) {
    cpu_set_t* set = CPU_ALLOC(processors);
    if (set == nullptr) break;
    const size_t size = CPU_ALLOC_SIZE(processors);
    const int count = sched_getaffinity(0, size, set) == 0 ? CPU_COUNT_S(size, set) : 0;
    CPU_FREE(set);
    if (count > 0) return count;
  }
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

bool has_word(const std::string& list, const std::string& word) {
  return ("," + list + ",").find("," + word + ",") != std::string::npos;
}

/** mountinfo writes blanks and backslashes as a backslash and three octal digits. */
std::string unescape(const std::string& text) {
  std::string result;
  for (const char *at = text.data(), *end = at + text.size(); at < end;) {
    int code = 0;
    if (*at == '\\' && end - at >= 4 && std::from_chars(at + 1, at + 4, code, 8).ptr == at + 4) {
      result += static_cast<char>(code);
      at += 4;
    } else {
      result += *at++;
    }
  }
  return result;
}

/** Quota ÷ period of one control group; infinite where it has none. */
double quota_of(const std::string& directory, bool unified) {
  double quota = -1, period = 0;
  if (unified) {
    std::ifstream(directory + "/cpu.max") >> quota >> period;  // "max" is no number
  } else {
    std::ifstream(directory + "/cpu.cfs_quota_us") >> quota;
    std::ifstream(directory + "/cpu.cfs_period_us") >> period;
  }
  return quota > 0 && period > 0 ? quota / period : std::numeric_limits<double>::infinity();
}

/** The process's control group by controller, "" for version 2's; its path within the hierarchy. */
std::map<std::string, std::string> control_groups(const std::string& root) {
  std::map<std::string, std::string> groups;
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // 4:cpu,cpuacct:/path
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    if (controllers.empty()) groups.emplace("", path);
    if (has_word(controllers, "cpu")) groups.emplace("cpu", path);
  }
  return groups;
}

/** `path` below a mount that shows the hierarchy from `top` on; "" where it lies elsewhere, and for the top itself. */
std::string below(const std::string& path, const std::string& top) {
  const std::string prefix = top == "/" ? "" : top;
  const bool inside = path.compare(0, prefix.size() + 1, prefix + "/") == 0;
  if (!inside || path.find("/..") != std::string::npos || path == "/") return "";
  return path.substr(prefix.size());
}

double read_quota(const std::string& root) {
  const auto groups = control_groups(root);
  double quota = std::numeric_limits<double>::infinity();
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    // 31 23 0:28 <top> <mount> <options> [optional ...] - <type> <source> <options>
    std::istringstream fields(line);
    std::string skipped, top, mount, type, options;
    fields >> skipped >> skipped >> skipped >> top >> mount;
    while (fields >> skipped && skipped != "-") {
    }
    fields >> type >> skipped >> options;
    const bool unified = type == "cgroup2";
    if (!unified && !(type == "cgroup" && has_word(options, "cpu"))) continue;
    const auto group = groups.find(unified ? "" : "cpu");
    if (group == groups.end()) continue;
    // Every group above it has a quota of its own, which holds for all below.
    std::string path = below(group->second, unescape(top));
    for (;;) {
      quota = std::min(quota, quota_of(root + unescape(mount) + path, unified));
      if (path.empty()) break;
      path.resize(path.rfind('/'));
    }
  }
  return quota;
}

DefaultThreads find_default_threads() {
  const char* text = std::getenv("SURPRISAL_NUM_THREADS");
  const std::string asked = text == nullptr ? "" : text;
  int count = 0;
  const char* end = asked.data() + asked.size();
  const auto [rest, error] = std::from_chars(asked.data(), end, count);
  if (error == std::errc() && rest == end && count >= 1 && count <= kMostThreads) return {count, ""};
  return {read_processors().threads(), asked};
}

}  // namespace

int Processors::threads() const {
  const double most = std::min<double>(allowed, kMostThreads);
  return static_cast<int>(std::clamp(std::ceil(quota), 1.0, most));
}

Processors read_processors(const std::string& root) { return {allowed_processors(), read_quota(root)}; }

const DefaultThreads& default_threads() {
  static const auto* found = new DefaultThreads(find_default_threads());
  return *found;
}

}  // namespace surprisal
