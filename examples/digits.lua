-- Reads handwritten digits: 8x8 pixels into one of ten classes, by a network with one hidden layer.
-- Shows its progress, then what it confuses with what, and its boldest mistakes.
--
--     luatape examples/digits.lua
local lt = require "luatape"
local nn, optim = lt.nn, lt.optim

local small = os.getenv "LUATAPE_EXAMPLE_SMALL"
local epochs, batch, noise = small and 8 or 60, 32, 0.15

lt.manual_seed(1)

-- Columns 1 to 64 are pixels from 0 to 16, column 65 is the digit. Classes count from 1.
local here = arg[0]:match "^(.*)[/\\]" or "."
local rows = lt.data.csv(here .. "/data/digits.csv")
local images = rows[{ {}, { 1, 64 } }] / 16
local labels = rows[{ {}, 65 }]:to "int64" + 1
local train_x, train_y, test_x, test_y = lt.data.split(images, labels, { test = 360, seed = 1 })
print(("%d digits to learn from, %d to be tested on"):format(#train_x, #test_x))

local model = nn.Sequential { nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10) }
local variables = model:parameters()
local optimizer = optim.Adam { lr = 0.002 }
local batches = lt.data.batches { train_x, train_y, batch = batch }
local progress = lt.data.progress(epochs * #train_x)

for epoch = 1, epochs do
  local seen, loss_sum, right = 0, 0, 0
  local function report()
    return "epoch %2d/%d  loss %.4f  accuracy %5.1f %%", epoch, epochs, loss_sum / seen,
      100 * right / seen
  end
  for xb, yb in batches do
    xb = xb + noise * lt.randn_like(xb) -- no image comes twice: none is learnt by heart
    local tape <close> = lt.tape()
    local logits = model(xb)
    local loss = lt.cross_entropy(logits, yb)
    optimizer:apply_gradients(tape:gradient(loss, variables), variables)
    seen = seen + #xb
    loss_sum = loss_sum + loss:item() * #xb
    right = right + logits:argmax(2):eq(yb):sum():item()
    progress:step(#xb, report())
  end
  progress:line(report())
end

local probabilities = model(test_x):softmax(2)
local certainty, predicted = probabilities:max(2)
print(("\naccuracy on the test digits: %.2f %%, trained in %.1f s"):format(
  100 * predicted:eq(test_y):sum():item() / #test_x, progress:elapsed()))

-- Row: the digit that it is. Column: the digit that it was taken for.
local confusion, mistakes = {}, {}
for digit = 1, 10 do
  confusion[digit] = {}
  for other = 1, 10 do confusion[digit][other] = 0 end
end
for i = 1, #test_x do
  local is, taken = test_y:get(i), predicted:get(i)
  confusion[is][taken] = confusion[is][taken] + 1
  if is ~= taken then mistakes[#mistakes + 1] = i end
end

print "\n        taken for\n        0   1   2   3   4   5   6   7   8   9"
for digit = 1, 10 do
  local line = {}
  for other = 1, 10 do
    local count = confusion[digit][other]
    line[other] = count > 0 and ("%4d"):format(count) or "   ."
  end
  print(("is %d %s"):format(digit - 1, table.concat(line)))
end

-- The mistakes that it was surest of, side by side.
table.sort(mistakes, function(a, b) return certainty:get(a) > certainty:get(b) end)
local shown = table.move(mistakes, 1, math.min(4, #mistakes), 1, {})
local ink = " .:-=+*#%@"

local function draw_row(image, row)
  local line = {}
  for column = 1, 8 do
    local level = math.floor(image:get(8 * (row - 1) + column) * (#ink - 1) + 0.5) + 1
    line[column] = ink:sub(level, level):rep(2) -- a character is about half as wide as high
  end
  return table.concat(line)
end

local function print_row(format)
  local line = {}
  for k, i in ipairs(shown) do line[k] = ("%-18s"):format(format(i)) end
  print((table.concat(line, "  "):gsub("%s+$", "")))
end

print(("\nits %d most confident mistakes of %d\n"):format(#shown, #mistakes))
for row = 1, 8 do print_row(function(i) return draw_row(test_x[i], row) end) end
print_row(function(i) return ("is %d"):format(test_y:get(i) - 1) end)
print_row(function(i)
  return ("read as %d (%.1f %%)"):format(predicted:get(i) - 1, 100 * certainty:get(i))
end)
