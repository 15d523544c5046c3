// Writes an event file by the commands on its standard input, so that the test that reads it says in one place what is written:
//
//   open FOLDER FIRST_STEP WALL_TIME
//   scalars STEP WALL_TIME TAG VALUE TAG VALUE ...
//   text STEP WALL_TIME TAG THE REST OF THE LINE

#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "seqboat/base/error.h"
#include "seqboat/base/event_file.h"

namespace {

void obey(seqboat::EventFile* file, const std::string& line) {
  std::istringstream words(line);
  std::string command, folder, tag, value;
  int64_t step = 0;
  double wall_time = 0;
  words >> command;
  if (command == "open" && words >> folder >> step >> wall_time) {
    file->open(folder, step, wall_time);
  } else if (command == "scalars" && words >> step >> wall_time) {
    std::vector<seqboat::EventScalar> scalars;
    while (words >> tag >> value) scalars.push_back({tag, std::strtod(value.c_str(), nullptr)});
    file->add_scalars(step, wall_time, scalars);
  } else if (command == "text" && words >> step >> wall_time >> tag && std::getline(words >> std::ws, value)) {
    file->add_text(step, wall_time, tag, value);
  } else {
    seqboat::fail(seqboat::ErrorKind::kUsage, "no command: {}", line);
  }
}

}  // namespace

int main() {
  try {
    seqboat::EventFile file;
    for (std::string line; std::getline(std::cin, line);) obey(&file, line);
    return 0;
  } catch (const seqboat::Error& error) {
    std::cerr << "write_events: error: " << error.what() << '\n';
    return seqboat::exit_code(error.kind());
  }
}
