-- What the README says is true: its program runs and learns, its message is the one that the example
-- prints, its names exist. The C host in it is built by .ci/run, with an installed copy.
local lt = require "luatape"

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "a"
  file:close()
  return text
end

local readme = read "README.md"

describe("the README", function()
  it("has a first model that learns", function()
    local losses = {}
    local environment = setmetatable({
      print = function(_, loss) losses[#losses + 1] = loss end,
    }, { __index = _G })
    lt.manual_seed(1)
    assert(load(readme:match "```lua\n(.-)```", "=README", "t", environment))()
    assert.equal(100, #losses)
    assert.is_true(losses[100] < 0.5 * losses[1])
  end)

  it("shows the message that the example prints", function()
    local program = os.getenv "LUATAPE_PROGRAM"
      or (os.getenv "LUATAPE_BUILD" or "build") .. "/luatape"
    local pipe = io.popen(("LUATAPE_EXAMPLE_SMALL=1 '%s' examples/seed.lua 2>&1"):format(program))
    local printed = pipe:read "a"
    assert.is_true(pipe:close())
    assert.matches(readme:match "\n```\n(refused.-)```", printed, 1, true)
  end)

  it("names what exists", function()
    for name in readme:gmatch "lt%.([%w_.]+%w)" do
      local value = lt
      for part in name:gmatch "[%w_]+" do value = value[part] end
      assert.is_not_nil(value, "lt." .. name)
    end
    for path in readme:gmatch "`([%w_]+/[%w_./]*)" do
      assert.is_truthy(io.open(path) or io.open(path .. "/."), path)
    end
  end)
end)
