#include "seqboat/data/pathfinder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <map>
#include <numbers>
#include <optional>

#include "seqboat/base/error.h"
#include "seqboat/base/philox.h"

namespace seqboat::data {
namespace {

// See batching.cc: the upper byte of a Philox stream tells its users apart.
constexpr uint64_t kPathfinderStream = uint64_t{0x50} << 56;
constexpr double kPi = std::numbers::pi;
constexpr int kTrials = 3;            // of a stroke
constexpr int kDistractorTrials = 5;  // of a whole distractor
constexpr double kFree = 0.3;         // a pixel with a mask above this is taken
constexpr double kLeastFree = 0.01;   // below this share of free pixels no further snake is tried
constexpr double kCollision = 1.8;    // of two masks' sum

struct Point {
  int64_t y = 0, x = 0;
};

// The original rounds up whatever it moves.
Point translate(Point from, double orientation, double distance) {
  return {static_cast<int64_t>(std::ceil(static_cast<double>(from.y) + distance * std::sin(orientation))),
          static_cast<int64_t>(std::ceil(static_cast<double>(from.x) + distance * std::cos(orientation)))};
}

/// Lanczos' filter as Pillow reduces pictures by: weights of each output pixel over a range of inputs.
class Lanczos {
 public:
  Lanczos(int64_t in, int64_t out) : in_(in), out_(out) {
    const double scale = static_cast<double>(in) / static_cast<double>(out), support = 3 * scale;
    for (int64_t i = 0; i < out; ++i) {
      const double centre = (static_cast<double>(i) + 0.5) * scale;
      Taps taps;
      taps.begin = std::max<int64_t>(0, static_cast<int64_t>(centre - support + 0.5));
      const int64_t end = std::min(in, static_cast<int64_t>(centre + support + 0.5));
      double sum = 0;
      for (int64_t k = taps.begin; k < end; ++k) {
        taps.weights.push_back(value((static_cast<double>(k) - centre + 0.5) / scale));
        sum += taps.weights.back();
      }
      for (double& weight : taps.weights) weight /= sum;
      taps_.push_back(std::move(taps));
    }
  }

  int64_t in() const { return in_; }
  int64_t out() const { return out_; }

  /// Output pixels [top, top + rows) x [left, left + columns) of a square picture in [0, 1], as bytes. Each of the two passes rounds and clips.
  template <class Picture>
  std::vector<uint8_t> reduce(const Picture& picture, int64_t top, int64_t rows, int64_t left, int64_t columns) const {
    const int64_t first = taps_[static_cast<size_t>(top)].begin;
    const Taps& bottom = taps_[static_cast<size_t>(top + rows - 1)];
    const int64_t last = bottom.begin + static_cast<int64_t>(bottom.weights.size());
    std::vector<uint8_t> narrow(static_cast<size_t>((last - first) * columns)), out(static_cast<size_t>(rows * columns));
    for (int64_t y = first; y < last; ++y) {
      for (int64_t x = 0; x < columns; ++x) {
        const Taps& taps = taps_[static_cast<size_t>(left + x)];
        double sum = 0;
        for (size_t k = 0; k < taps.weights.size(); ++k) sum += taps.weights[k] * (picture(y, taps.begin + static_cast<int64_t>(k)) ? 255.0 : 0.0);
        narrow[static_cast<size_t>((y - first) * columns + x)] = byte(sum);
      }
    }
    for (int64_t y = 0; y < rows; ++y) {
      const Taps& taps = taps_[static_cast<size_t>(top + y)];
      for (int64_t x = 0; x < columns; ++x) {
        double sum = 0;
        for (size_t k = 0; k < taps.weights.size(); ++k) {
          sum += taps.weights[k] * narrow[static_cast<size_t>((taps.begin + static_cast<int64_t>(k) - first) * columns + x)];
        }
        out[static_cast<size_t>(y * columns + x)] = byte(sum);
      }
    }
    return out;
  }

 private:
  struct Taps {
    int64_t begin = 0;
    std::vector<double> weights;
  };
  static double sinc(double x) { return x == 0 ? 1.0 : std::sin(kPi * x) / (kPi * x); }
  static double value(double x) { return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0.0; }
  static uint8_t byte(double x) { return static_cast<uint8_t>(std::clamp(x + 0.5, 0.0, 255.0)); }

  int64_t in_, out_;
  std::vector<Taps> taps_;
};

/// A stroke around the place where it begins: `side` x `side` pixels.
struct Stroke {
  std::vector<float> line, mask;  // in [0, 1]
  // Cells whose mask is whole, one pixel off their place, as the original has it when it looks for room, and no further than a step.
  std::vector<std::pair<int64_t, int64_t>> room;
  // The original takes the largest mask over `room` around each pixel. Where all of `room` lies outside for one pixel of the picture, the result
  // there is below 0, and it finds no room anywhere. So only some directions begin a snake, which is why most distractors are missing.
  bool can_begin = false;
};

/// A set of pixels, a row of at most 128 in two words.
using Row = std::array<uint64_t, 2>;

Row shifted(const Row& row, int64_t by) {  // bit x of the result is bit x + by
  if (by == 0) return row;
  if (by > 0) return {row[0] >> by | row[1] << (64 - by), row[1] >> by};
  return {row[0] << -by, row[1] << -by | row[0] >> (64 + by)};
}

/// Strokes of one margin, each drawn when it is first asked for.
class Strokes {
 public:
  Strokes(const PathfinderOptions& options, int64_t margin)
      : options_(options),
        margin_(margin),
        half_(options.stroke_length + static_cast<int64_t>(std::ceil(options.thickness)) + margin),
        reduction_(2 * half_ * options.antialias + 1, 2 * half_ + 1) {}

  int64_t margin() const { return margin_; }
  int64_t half() const { return half_; }
  int64_t side() const { return 2 * half_ + 1; }
  int64_t step() const { return options_.stroke_length + margin_; }

  const Stroke& at(double orientation) {
    const auto [place, is_new] = strokes_.try_emplace(orientation);
    if (is_new) draw(orientation, &place->second);
    return place->second;
  }

 private:
  void draw(double orientation, Stroke* out) const {
    const int64_t blown = reduction_.in(), centre = half_ * options_.antialias;
    const auto width = static_cast<int64_t>(std::lround(options_.thickness * static_cast<double>(options_.antialias)));
    const Point head = translate({centre, centre}, orientation, static_cast<double>(options_.stroke_length * options_.antialias));
    std::vector<uint8_t> line(static_cast<size_t>(blown * blown), 0), mask(line.size(), 0);
    const auto put = [&](std::vector<uint8_t>* to, int64_t y, int64_t x) {
      if (y >= 0 && y < blown && x >= 0 && x < blown) (*to)[static_cast<size_t>(y * blown + x)] = 1;
    };
    const int64_t dy = head.y - centre, dx = head.x - centre;
    if (width <= 1) {
      // Bresenham's line, both ends included.
      const int64_t ay = std::abs(dy), ax = std::abs(dx), sy = dy < 0 ? -1 : 1, sx = dx < 0 ? -1 : 1, most = std::max(ay, ax),
                    least = std::min(ay, ax);
      int64_t y = centre, x = centre, error = 2 * least - most;
      for (int64_t i = 0; i <= most; ++i) {
        put(&line, y, x);
        const bool aside = error >= 0 && least > 0;
        if (aside) error -= 2 * most;
        error += 2 * least;
        if (ax > ay || aside) x += sx;
        if (ax <= ay || aside) y += sy;
      }
    } else {
      const double length = std::hypot(static_cast<double>(dy), static_cast<double>(dx)), reach = static_cast<double>(width) / 2;
      for (int64_t y = 0; y < blown; ++y) {
        for (int64_t x = 0; x < blown; ++x) {
          const auto py = static_cast<double>(y - centre), px = static_cast<double>(x - centre);
          const double along = (py * static_cast<double>(dy) + px * static_cast<double>(dx)) / length;
          const double aside = std::abs(py * static_cast<double>(dx) - px * static_cast<double>(dy)) / length;
          if (along >= -0.5 && along <= length + 0.5 && aside < reach) put(&line, y, x);
        }
      }
    }
    const int64_t radius = margin_ * options_.antialias;
    for (int64_t y = 0; y < blown; ++y) {
      for (int64_t x = 0; x < blown; ++x) {
        if (line[static_cast<size_t>(y * blown + x)] == 0) continue;
        for (int64_t oy = -radius; oy <= radius; ++oy) {
          for (int64_t ox = -radius; ox <= radius; ++ox) {
            if (oy * oy + ox * ox <= radius * radius) put(&mask, y + oy, x + ox);
          }
        }
      }
    }
    const auto reduced = [&](const std::vector<uint8_t>& picture) {
      return reduction_.reduce([&](int64_t y, int64_t x) { return picture[static_cast<size_t>(y * blown + x)] != 0; }, 0, side(), 0, side());
    };
    for (const uint8_t value : reduced(line)) out->line.push_back(static_cast<float>(value) / 255.0F);
    for (const uint8_t value : reduced(mask)) {
      const auto cell = static_cast<int64_t>(out->mask.size());
      const int64_t y = cell / side() - half_ + 1, x = cell % side() - half_ + 1;
      if (value == 255 && std::abs(y) <= step() && std::abs(x) <= step()) out->room.emplace_back(y, x);
      out->mask.push_back(static_cast<float>(value) / 255.0F);
    }
    const auto has = [&](int64_t sign_y, int64_t sign_x) {
      return std::any_of(out->room.begin(), out->room.end(), [&](const auto& at) { return at.first * sign_y >= 0 && at.second * sign_x >= 0; });
    };
    out->can_begin = has(1, 1) && has(1, -1) && has(-1, 1) && has(-1, -1);  // at each corner something of it lies inside
  }

  const PathfinderOptions& options_;
  int64_t margin_, half_;
  Lanczos reduction_;
  std::map<double, Stroke> strokes_;
};

/// What has been drawn, and what is taken.
struct Canvas {
  std::vector<float> image, mask;
  std::vector<Row> taken;  // mask > kFree
};

/// A snake while it grows. Its last stroke is not in the mask yet, so that the next one may touch it.
struct Snake {
  Point pivot, tail, head;
  double orientation = 0;
  const Stroke* last = nullptr;
  Point last_at;
};

}  // namespace

class PathfinderGenerator::Impl {
 public:
  Impl(const PathfinderOptions& options, uint64_t seed)
      : options_(options), seed_(seed), size_(options.size), marker_(options.size * options.antialias, options.size) {
    SEQBOAT_CHECK(size_ >= 8 && size_ <= 128 && !options_.margins.empty(), ErrorKind::kConfig,
                  "Pathfinder: expected a size from 8 to 128 and a margin, found {} and {} margins", size_, options_.margins.size());
    for (const int64_t margin : options_.margins) strokes_.emplace_back(options_, margin);
    blank_ = blank();
  }

  int64_t make(Split split, int64_t index, uint8_t* pixels) {
    PhiloxStream random(seed_, kPathfinderStream | static_cast<uint64_t>(split) << 48 | static_cast<uint64_t>(index));
    random_ = &random;
    const auto label = static_cast<int64_t>(random.next_below(2));
    s_ = &strokes_[random.next_below(strokes_.size())];

    Canvas canvas;
    std::array<Snake, 2> snakes;
    while (!draw_contours(&canvas, &snakes)) {
    }
    for (int64_t i = 0; i < options_.distractors; ++i) {
      for (int trial = 0; trial < kDistractorTrials; ++trial) {
        if (draw_distractor(&canvas)) break;
      }
    }
    const auto first = static_cast<size_t>(random.next_below(2));
    draw_marker(&canvas, snakes[first].tail);
    draw_marker(&canvas, snakes[label == 1 ? first : 1 - first].head);

    const auto [least, most] = std::minmax_element(canvas.image.begin(), canvas.image.end());
    const double low = *least, scale = 255 / (static_cast<double>(*most) - low);
    std::transform(canvas.image.begin(), canvas.image.end(), pixels,
                   [&](float v) { return static_cast<uint8_t>((static_cast<double>(v) - low) * scale + 0.5); });
    return label;
  }

 private:
  bool inside(Point p) const { return p.y >= 0 && p.y < size_ && p.x >= 0 && p.x < size_; }
  double any_orientation() { return static_cast<double>(static_cast<int64_t>(random_->next_below(360)) - 180) * kPi / 180; }
  static double reversed(double orientation) { return orientation < 0 ? orientation + kPi : orientation - kPi; }

  Canvas blank() const {
    Canvas canvas{std::vector<float>(static_cast<size_t>(size_ * size_)), std::vector<float>(static_cast<size_t>(size_ * size_)),
                  std::vector<Row>(static_cast<size_t>(size_))};
    for (int64_t y = 0; y < size_; ++y) {
      for (int64_t x = 0; x < size_; ++x) {
        if (std::min({y, x, size_ - 1 - y, size_ - 1 - x}) < options_.padding) take(&canvas, y, x, 1.0F);
      }
    }
    return canvas;
  }

  void take(Canvas* canvas, int64_t y, int64_t x, float mask) const {
    float& cell = canvas->mask[static_cast<size_t>(y * size_ + x)];
    cell = std::max(cell, mask);
    if (cell > kFree) canvas->taken[static_cast<size_t>(y)][static_cast<size_t>(x / 64)] |= uint64_t{1} << (x % 64);
  }

  /// use(y, x, cell of the stroke) for what of it lies inside.
  template <class Use>
  void for_cells(Point at, const Use& use) const {
    const int64_t half = s_->half(), side = s_->side();
    for (int64_t y = std::max<int64_t>(0, at.y - half); y <= std::min(size_ - 1, at.y + half); ++y) {
      for (int64_t x = std::max<int64_t>(0, at.x - half); x <= std::min(size_ - 1, at.x + half); ++x) {
        use(y, x, static_cast<size_t>((y - at.y + half) * side + x - at.x + half));
      }
    }
  }

  void draw_line(Canvas* canvas, const Stroke& stroke, Point at, double contrast) const {
    const auto c = static_cast<float>(contrast);
    for_cells(at, [&](int64_t y, int64_t x, size_t cell) {
      float& pixel = canvas->image[static_cast<size_t>(y * size_ + x)];
      pixel = std::max(pixel, stroke.line[cell] * c);
    });
  }

  void take_stroke(Canvas* canvas, const Stroke& stroke, Point at) const {
    for_cells(at, [&](int64_t y, int64_t x, size_t cell) { take(canvas, y, x, stroke.mask[cell]); });
  }

  /// A place where a stroke of this orientation fits with `border` pixels of a border around, if there is any.
  std::optional<Point> free_place(const Canvas& canvas, const Stroke& stroke, int64_t border) {
    if (!stroke.can_begin) return std::nullopt;
    Row all{};
    for (int64_t x = 0; x < size_; ++x) all[static_cast<size_t>(x / 64)] |= uint64_t{1} << (x % 64);
    Row middle{};
    for (int64_t x = border; x < size_ - border; ++x) middle[static_cast<size_t>(x / 64)] |= uint64_t{1} << (x % 64);
    std::vector<Row>& lined = lined_;
    lined = canvas.taken;
    for (int64_t y = 0; y < size_; ++y) {
      const bool outside = y < border || y >= size_ - border;
      for (size_t w = 0; w < 2; ++w) lined[static_cast<size_t>(y)][w] |= outside ? all[w] : all[w] & ~middle[w];
    }
    blocked_.assign(static_cast<size_t>(size_), Row{});
    for (const auto& [dy, dx] : stroke.room) {
      for (int64_t y = std::max<int64_t>(0, -dy); y < std::min(size_, size_ - dy); ++y) {
        const Row row = shifted(lined[static_cast<size_t>(y + dy)], dx);
        for (size_t w = 0; w < 2; ++w) blocked_[static_cast<size_t>(y)][w] |= row[w];
      }
    }
    int64_t free = 0;
    for (const Row& row : blocked_) free += std::popcount(all[0] & ~row[0]) + std::popcount(all[1] & ~row[1]);
    if (free == 0) return std::nullopt;
    auto wanted = static_cast<int64_t>(random_->next_below(static_cast<uint64_t>(free)));
    for (int64_t y = 0; y < size_; ++y) {
      for (size_t w = 0; w < 2; ++w) {
        uint64_t bits = all[w] & ~blocked_[static_cast<size_t>(y)][w];
        const int64_t count = std::popcount(bits);
        if (wanted >= count) {
          wanted -= count;
          continue;
        }
        for (; wanted > 0; --wanted) bits &= bits - 1;
        return Point{y, static_cast<int64_t>(w) * 64 + std::countr_zero(bits)};
      }
    }
    return std::nullopt;
  }

  /// Where a stroke that begins at `tail` leads to, if that lies inside.
  std::optional<Snake> begin(Point tail, double orientation) {
    Snake snake;
    snake.tail = tail;
    snake.head = translate(tail, orientation, static_cast<double>(options_.stroke_length));
    snake.pivot = translate(snake.head, reversed(orientation), static_cast<double>(s_->step()));
    snake.orientation = orientation;
    snake.last = &s_->at(orientation);
    snake.last_at = tail;
    if (!inside(snake.head) || !inside(snake.pivot)) return std::nullopt;
    return snake;
  }

  /// The first stroke, somewhere.
  std::optional<Snake> seed(const Canvas& canvas, int64_t border) {
    for (int trial = 0; trial < kTrials; ++trial) {
      const double orientation = any_orientation();
      const auto tail = free_place(canvas, s_->at(orientation), border);
      if (!tail) return std::nullopt;
      if (auto snake = begin(*tail, orientation)) return snake;
    }
    return std::nullopt;
  }

  /// One stroke more.
  bool extend(Canvas* canvas, Snake* snake, double contrast) {
    const int64_t step = s_->step(), margin = s_->margin();
    const Point pivot = translate(snake->pivot, snake->orientation, static_cast<double>(options_.stroke_length + 2 * margin));
    // Ends on a circle around the pivot, a pixel of arc apart; of those in one pixel one counts.
    std::vector<Point>& ends = ends_;
    ends.clear();
    const double apart = 360.0 / (2 * static_cast<double>(step) * kPi);
    for (int64_t i = 0; static_cast<double>(i) * apart < 360; ++i) {
      const double angle = static_cast<double>(i) * apart * kPi / 180;
      const double y = static_cast<double>(pivot.y) + static_cast<double>(step) * std::sin(angle);
      const double x = static_cast<double>(pivot.x) + static_cast<double>(step) * std::cos(angle);
      if (y < 0 || x < 0 || y >= static_cast<double>(size_) || x >= static_cast<double>(size_)) continue;
      ends.push_back({static_cast<int64_t>(y), static_cast<int64_t>(x)});
    }
    const auto key = [](Point p) { return std::pair(p.y, p.x); };
    std::sort(ends.begin(), ends.end(), [&](Point a, Point b) { return key(a) < key(b); });
    ends.erase(std::unique(ends.begin(), ends.end(), [&](Point a, Point b) { return key(a) == key(b); }), ends.end());

    std::vector<double>& sums = sums_;
    sums.clear();
    double total = 0;
    for (const Point& end : ends) {
      const double orientation = std::atan2(static_cast<double>(end.y - pivot.y), static_cast<double>(end.x - pivot.x));
      double turn = std::abs(orientation - snake->orientation);
      turn = std::min(std::min(turn, 2 * kPi - turn) * options_.continuity, kPi / 2);
      float taken = 0;
      for (int64_t y = std::max<int64_t>(0, end.y - margin); y <= std::min(size_ - 1, end.y + margin); ++y) {
        for (int64_t x = std::max<int64_t>(0, end.x - margin); x <= std::min(size_ - 1, end.x + margin); ++x) {
          const int64_t dy = y - end.y, dx = x - end.x;
          if (dy * dy + dx * dx <= margin * margin) taken = std::max(taken, canvas->mask[static_cast<size_t>(y * size_ + x)]);
        }
      }
      const double straight = std::max(std::cos(turn), 0.0);
      total += (1 - static_cast<double>(taken)) * straight * straight;
      sums.push_back(total);
    }
    if (total < 1e-4) return false;
    for (int trial = 0; trial < kTrials; ++trial) {
      const double drawn = random_->next_uniform() * total;
      const auto chosen = static_cast<size_t>(std::upper_bound(sums.begin(), sums.end(), drawn) - sums.begin());
      const Point head = ends[std::min(chosen, ends.size() - 1)];
      const double orientation = std::atan2(static_cast<double>(head.y - pivot.y), static_cast<double>(head.x - pivot.x));
      const Stroke& stroke = s_->at(reversed(orientation));
      bool collides = false;
      for_cells(head, [&](int64_t y, int64_t x, size_t cell) {
        const double sum = static_cast<double>(canvas->mask[static_cast<size_t>(y * size_ + x)]) + static_cast<double>(stroke.mask[cell]);
        collides = collides || sum >= kCollision;
      });
      if (collides) continue;
      draw_line(canvas, stroke, head, contrast);
      take_stroke(canvas, *snake->last, snake->last_at);
      snake->pivot = pivot;
      snake->head = head;
      snake->orientation = orientation;
      snake->last = &stroke;
      snake->last_at = head;
      return true;
    }
    return false;
  }

  bool draw_contours(Canvas* canvas, std::array<Snake, 2>* snakes) {
    const auto first = seed(blank_, 2 * options_.seed_distance);
    if (!first) return false;
    *canvas = blank_;
    std::optional<Snake> second;
    for (int trial = 0; trial < kTrials && !second; ++trial) {
      const double orientation = any_orientation(), direction = static_cast<double>(random_->next_below(360)) * kPi / 180;
      const auto distance = static_cast<double>(options_.seed_distance);
      const Point tail{std::lrint(static_cast<double>(first->tail.y) + distance * std::sin(direction)),
                       std::lrint(static_cast<double>(first->tail.x) + distance * std::cos(direction))};
      second = begin(tail, orientation);
    }
    if (!second) return false;
    *snakes = {*first, *second};
    for (const Snake& snake : *snakes) draw_line(canvas, *snake.last, snake.last_at, options_.contour_contrast);
    for (int64_t i = 1; i < options_.contour_length; ++i) {
      for (Snake& snake : *snakes) {
        if (!extend(canvas, &snake, options_.contour_contrast)) return false;
      }
    }
    // The first one's last stroke stays out of the mask, as in the original.
    take_stroke(canvas, *(*snakes)[1].last, (*snakes)[1].last_at);
    return true;
  }

  bool draw_distractor(Canvas* canvas) {
    int64_t taken = 0;
    for (const Row& row : canvas->taken) taken += std::popcount(row[0]) + std::popcount(row[1]);
    const auto all = static_cast<double>(size_ * size_);
    if ((all - static_cast<double>(taken)) / all < kLeastFree) return false;
    auto snake = seed(*canvas, 1);
    if (!snake) return false;
    Canvas tried = *canvas;
    draw_line(&tried, *snake->last, snake->last_at, options_.distractor_contrast);
    for (int64_t i = 1; i < options_.distractor_length; ++i) {
      if (!extend(&tried, &*snake, options_.distractor_contrast)) return false;
    }
    take_stroke(&tried, *snake->last, snake->last_at);
    *canvas = std::move(tried);
    return true;
  }

  void draw_marker(Canvas* canvas, Point at) const {
    const auto radius = options_.marker_radius * static_cast<double>(options_.antialias);
    const int64_t reach = static_cast<int64_t>(std::ceil(options_.marker_radius)) + 3;
    const int64_t top = std::max<int64_t>(0, at.y - reach), left = std::max<int64_t>(0, at.x - reach);
    const int64_t rows = std::min(size_ - 1, at.y + reach) - top + 1, columns = std::min(size_ - 1, at.x + reach) - left + 1;
    const auto disc = marker_.reduce(
        [&](int64_t y, int64_t x) {
          const auto dy = static_cast<double>(y - at.y * options_.antialias), dx = static_cast<double>(x - at.x * options_.antialias);
          return dy * dy + dx * dx <= radius * radius;
        },
        top, rows, left, columns);
    for (int64_t y = 0; y < rows; ++y) {
      for (int64_t x = 0; x < columns; ++x) {
        float& pixel = canvas->image[static_cast<size_t>((top + y) * size_ + left + x)];
        pixel = std::max(pixel, static_cast<float>(disc[static_cast<size_t>(y * columns + x)]) / 255.0F);
      }
    }
  }

  PathfinderOptions options_;
  uint64_t seed_;
  int64_t size_;
  Lanczos marker_;
  std::vector<Strokes> strokes_;
  Canvas blank_;  // with the padding taken
  // Of the picture that is being made.
  PhiloxStream* random_ = nullptr;
  Strokes* s_ = nullptr;
  std::vector<Row> lined_, blocked_;
  std::vector<Point> ends_;
  std::vector<double> sums_;
};

PathfinderOptions PathfinderOptions::lra(int64_t size) {
  if (size == 32) return {};
  SEQBOAT_CHECK(size == 128, ErrorKind::kConfig, "Pathfinder: expected a size of 32 or 128, found {}", size);
  PathfinderOptions out;
  out.size = 128;
  out.margins = {2, 3};
  out.stroke_length = 5;
  out.thickness = 1.5;
  out.distractors = 8;
  out.seed_distance = 20;
  out.marker_radius = 3;
  out.continuity = 1.8;
  out.contour_contrast = 0.9;
  out.distractor_contrast = 0.9;
  return out;
}

PathfinderGenerator::PathfinderGenerator(const PathfinderOptions& options, uint64_t seed) : impl_(std::make_unique<Impl>(options, seed)) {}
PathfinderGenerator::~PathfinderGenerator() = default;

int64_t PathfinderGenerator::make(Split split, int64_t index, uint8_t* pixels) {
  return impl_->make(split, index, pixels);
}

}  // namespace seqboat::data
