-- Every example runs through the built program, in its small setting and from another directory,
-- and what it prints is read back: losses fall, accuracies hold, reasons name the right line.
local lfs = require "lfs"

local here = lfs.currentdir()

local function absolute(path) return path:sub(1, 1) == "/" and path or here .. "/" .. path end

local program = absolute(os.getenv "LUATAPE_PROGRAM"
  or (os.getenv "LUATAPE_BUILD" or "build") .. "/luatape")

local function quote(word) return "'" .. word:gsub("'", [['\'']]) .. "'" end

---What the example prints, errors included; it must succeed within a minute.
local function run(name)
  local path = os.tmpname()
  local _, _, code = os.execute(("cd / && env -u LUA_INIT -u LUA_INIT_5_4 LUATAPE_EXAMPLE_SMALL=1 "
    .. "timeout 60 %s %s < /dev/null > %s 2>&1"):format(quote(program),
    quote(here .. "/examples/" .. name .. ".lua"), quote(path)))
  local file = assert(io.open(path, "rb"))
  local text = file:read "a"
  file:close()
  os.remove(path)
  assert.equal(0, code, text)
  return text
end

---The number of the only line of the example that holds `text`.
local function line_of(name, text)
  local number, found = 0, nil
  for line in io.lines(here .. "/examples/" .. name .. ".lua") do
    number = number + 1
    if line:find(text, 1, true) then
      assert.is_nil(found, text .. " is there twice")
      found = number
    end
  end
  return assert(found, text)
end

local function captures(text, pattern)
  local list = {}
  for value in text:gmatch(pattern) do list[#list + 1] = tonumber(value) or value end
  return list
end

describe("examples", function()
  it("all have a test here", function()
    local tested = {
      seed = true, why = true, digits = true, regression = true, iris = true, derivatives = true,
    }
    for name in lfs.dir(here .. "/examples") do
      local stem = name:match "^(.*)%.lua$"
      if stem then assert.is_true(tested[stem], name .. " has no test") end
    end
  end)

  it("derivatives: each kind has the right value", function()
    local text = run "derivatives"
    assert.equal(7, #captures(text, "Newton (%d)"))
    assert.matches("Newton 7: f = %S+ at %(1%.000000, 1%.000000%)", text)
    assert.matches("its determinant is r: 2.000000", text, 1, true)
    assert.matches("a throw at 20 m/s flies 25%.%d+ m, and 0%.97 m more", text)
    assert.matches("of 150 irises number %d+ has the largest gradient", text)
    assert.matches("the gradient of custom_gradient at examples/derivatives.lua:"
      .. line_of("derivatives", "cube(t):sum()") .. " is wrong", text:gsub("/%S*/examples/", "examples/"), 1, true)
  end)

  it("seed: learns, says where the forward pass was, and trains one layer alone", function()
    local text = run "seed"
    local one, two, three = text:match "(1%. .*)(\n2%. .*)(\n3%. .*)"
    local losses = captures(one, "loss ([%d.]+)")
    assert.equal(3, #losses)
    assert.is_true(losses[3] < 0.95 * losses[1], one)

    local early = "seed.lua:" .. line_of("seed", "too early")
    assert.matches("refused: ", two, 1, true)
    assert.matches("the cause is in [^\n]*" .. early:gsub("%p", "%%%0") .. "\n", two)
    assert.matches("no gradients provided for any variable", two, 1, true)

    local stop = "seed.lua:" .. line_of("seed", "lt.stop_gradient(")
    assert.matches(stop, three, 1, true)
    assert.same({ "1.weight", "1.bias" }, captures(three, "\n([%w.]+) +unchanged"))
    assert.same({ "3.weight", "3.bias" }, captures(three, "\n([%w.]+) +moved by up to 0%.%d*[1-9]"))
  end)

  it("why: each of the eight has its code and its line", function()
    local text = run "why"
    local expected = {
      { "outside-tape", "linear", "no tape listens yet" },
      { "stopped", "detach", "for the second layer alone" },
      { "left-tensors", "item", "a number has no past" },
      { "rebound", "sub", "a new tensor, and not a variable" },
      { "nondiff-op", "gt", "a step has no slope" },
      { "dead-end", "linear", "never used again" },
      { "partial", "stop_gradient", "its share is missing" },
      { "zero", "relu", "all of it below zero" },
    }
    local found = 0
    for code, op, line in text:gmatch "\n  code (%S+), op (%S+), where [^\n]-why%.lua:(%d+)\n" do
      found = found + 1
      local row = expected[found]
      assert.same({ row[1], row[2], (line_of("why", row[3])) }, { code, op, tonumber(line) })
      assert.matches("[" .. code .. "]\n", text, 1, true)
    end
    assert.equal(#expected, found)
  end)

  it("digits: knows most digits after a few epochs, and counts its mistakes right", function()
    local text = run "digits"
    assert.is_nil(text:find("\r", 1, true))
    local losses = captures(text, "epoch +%d+/8  loss ([%d.]+)")
    assert.equal(8, #losses)
    assert.is_true(losses[8] < losses[1] / 5)
    assert.matches("%d+ samples/s  0%.0 s left\n", text)

    local accuracy = tonumber(text:match "accuracy on the test digits: ([%d.]+) %%")
    assert.is_true(accuracy >= 93, text)
    local total, right = 0, 0
    for digit, row in text:match("taken for(.*)its"):gmatch "is (%d) ([%d. ]+)" do
      local column = 0
      for cell in row:gmatch "%S+" do
        local count = tonumber(cell) or 0
        total = total + count
        if column == tonumber(digit) then right = right + count end
        column = column + 1
      end
      assert.equal(10, column)
    end
    assert.equal(360, total)
    assert.equal(("%.2f"):format(accuracy), ("%.2f"):format(100 * right / total))

    local shown, of, picture = text:match "its (%d+) most confident mistakes of (%d+)\n\n(.*)"
    assert.equal(360 - right, tonumber(of))
    local digits = captures(picture, "is (%d)")
    local reads = captures(picture, "read as (%d %([%d.]+) %%%)")
    assert.equal(tonumber(shown), #digits)
    assert.equal(#digits, #reads)
    local last = 100
    for i, read in ipairs(reads) do
      local digit, certainty = read:match "(%d) %((.*)"
      assert.is_true(tonumber(digit) ~= digits[i] and tonumber(certainty) <= last)
      last = tonumber(certainty)
    end
    assert.equal(10, select(2, picture:gsub("\n", "")))
  end)

  it("regression: comes nearer to the curve than the noise of the data", function()
    local text = run "regression"
    local losses = captures(text, "loss ([%d.]+)")
    assert.is_true(losses[#losses] < losses[1] / 10)
    local distance, noise = text:match "true curve: ([%d.]+) %(noise in the data: ([%d.]+)%)"
    assert.is_true(tonumber(distance) < tonumber(noise), text)
    local heights = captures(text, "\n +(%-?[%d.]+) |")
    assert.equal(21, #heights)
    local picture = text:match "|.*|[^\n]*"
    assert.is_true(select(2, picture:gsub("#", "")) > 60)
    assert.is_true(select(2, picture:gsub(" ?%.", "")) > 40)
  end)

  it("iris: tells the species apart, and counts the flowers of each", function()
    local text = run "iris"
    assert.is_true(tonumber(text:match "has not seen: ([%d.]+) %%") >= 90, text)
    local flowers, hits = 0, 0
    for name, count, recall in text:gmatch "\n(%a+) +(%d+) +[%d.]+%% +([%d.]+)%%" do
      assert.is_true(name == "setosa" or name == "versicolor" or name == "virginica")
      flowers = flowers + count
      hits = hits + count * recall / 100
    end
    assert.equal(50, flowers)
    assert.is_true(math.abs(hits / 50 * 100 - tonumber(text:match "seen: ([%d.]+)")) < 0.2)
  end)
end)
