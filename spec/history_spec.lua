-- What explain says agrees with the walk, for every op; and what it costs to look back: memory stays flat
-- however long a program runs without a tape.
local lt = require "luatape"
local samples = require "spec.samples"

describe("every op", function()
  ---Calls f(tensor) for the float inputs.
  local function each_float(arguments, f)
    samples.map(arguments, function(t)
      if t.dtype:find "^float" then f(t) end
      return t
    end)
  end

  for _, op in ipairs(samples.ops()) do
    it(op.name .. " is connected exactly where there is a gradient, and named where it cuts", function()
      for k = 1, #op.samples do
        local arguments = samples.draw(op, k)
        local early = table.pack(lt[op.name](table.unpack(arguments, 1, arguments.n)))
        local tape <close> = lt.tape{ persistent = true }
        each_float(arguments, function(t) tape:watch(t) end)
        local results = table.pack(lt[op.name](table.unpack(arguments, 1, arguments.n)))
        each_float(arguments, function(source)
          for i, result in ipairs(results) do
            local why = tape:explain(result, source)
            if result.dtype:find "^float" then
              local g = tape:gradient(result, source)
              local connected = why.code == "ok" or why.code == "zero" or why.code == "nonfinite"
              assert.equal(g ~= nil, connected, why.message)
            else
              assert.truthy(why.code == "nondiff-op" or why.code == "int-cast", why.message)
            end
            if why.code ~= "ok" and #why.cuts > 0 then assert.equal(op.name, why.op) end
            why = tape:explain(early[i], source)
            if why.code ~= "history-dropped" and #why.cuts > 0 then assert.equal(op.name, why.op) end
          end
        end)
      end
    end)
  end
end)

describe("a loop outside of tapes", function()
  it("of 1,000,000 operations stays flat, whatever the history", function()
    local program = os.getenv "LUATAPE_PROGRAM"
      or (os.getenv "LUATAPE_BUILD" or "build") .. "/luatape"
    local file = os.tmpname()
    local f <close> = assert(io.open(file, "w"))
    f:write [[
      local lt = require "luatape"
      lt.set_history(math.tointeger(tonumber(arg[1])))
      local function resident()
        local file <close> = io.open "/proc/self/statm"
        return file and tonumber(file:read "a":match "%d+ (%d+)") * 4096 or 0
      end
      local x, before = lt.ones(16), nil
      for i = 1, 1000000 do
        local _ = x + x
        if i == 500000 then before = resident() end
      end
      print(("%.0f"):format(resident() - before))
    ]]
    f:flush()
    for _, limit in ipairs{ 0, 10, 65536 } do
      -- a sanitized build keeps what was freed for a while: less of it
      local pipe = io.popen(("ASAN_OPTIONS=$ASAN_OPTIONS:quarantine_size_mb=1 '%s' %s %d 2>&1")
        :format(program, file, limit))
      local grown = tonumber((pipe:read "a"))
      assert.is_true(pipe:close())
      assert.is_true(grown < 2e6, ("%d bytes with %d"):format(grown, limit))
    end
    os.remove(file)
  end)
end)
