-- docs/why.md says what the engine says: each mistake prints the message below it, each repair has a
-- gradient, every code of the table of causes has its chapter.
local lt = require "luatape"
local script = require "spec.script"

local guide
do
  local file <close> = assert(io.open("docs/why.md", "rb"))
  guide = file:read "a"
end

---What the program train.lua prints.
local function printed(text)
  local lines = {}
  script.run("train.lua", text, { print = function(value) lines[#lines + 1] = tostring(value) end })
  return table.concat(lines, "\n") .. "\n"
end

describe("the guide to missing gradients", function()
  after_each(function() lt.set_history(65536) end)

  local count, title = 0, nil
  for line, at in guide:gmatch "([^\n]*)\n()" do
    title = line:match "^## (.*)" or title
    local mistake, message, repair = nil, nil, nil
    if line == "```lua" then
      mistake, message, repair = guide:match("^(.-)```\n\n```\n(.-)```\n\n?```lua\n(.-)```\n", at)
    end
    if mistake and not mistake:find("```", 1, true) then
      count = count + 1
      it(title .. ": mistake and message", function()
        assert.equal(message, printed(mistake))
      end)
      it(title .. ": repair", function()
        assert.is_true(lt.is_tensor(script.run("train.lua", repair .. "return g")))
      end)
    end
  end

  it("has a chapter, a message and a repair for every code", function()
    assert.equal(24, count)
    for code in ([[outside-tape no-grad paused reset other-tape second-order stopped unwatched
        late-watch frozen rebound assigned left-tensors int-dtype int-cast nondiff-op dead-end unused
        history-dropped partial zero nonfinite]]):gmatch "%S+" do
      assert.truthy(guide:find("\n## " .. code .. "\n", 1, true), code)
      assert.truthy(guide:find("[" .. code .. "]", 1, true), code)
    end
  end)
end)
