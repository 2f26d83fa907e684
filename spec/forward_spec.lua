-- Forward mode, op by op: tangents agree with the gradients that op_spec checks, also where one is
-- taken of the other.
local lt = require "luatape"
local samples = require "spec.samples"
local derivatives = require "spec.derivatives"

local call, floats, noise, inner = derivatives.call, derivatives.floats, derivatives.noise,
  derivatives.inner

local TOLERANCE = 1e-9

local function assert_near(what, got, expected)
  local scale = math.max(1, math.abs(expected))
  assert(math.abs(got - expected) <= TOLERANCE * scale,
    ("%s: %.15g, expected %.15g"):format(what, got, expected))
end

---<tangents of the outputs, noise>
local function push(op, arguments, tangents)
  local sources = floats(arguments)
  local y, dy = lt.jvp(function(...)
    local list = {}
    for _, out in ipairs(call(op, derivatives.with(arguments, { ... }))) do
      if derivatives.is_float(out) then list[#list + 1] = out end
    end
    return list
  end, sources, tangents)
  local sum = 0
  local cotangents = {}
  for k, out in ipairs(call(op, arguments)) do
    if derivatives.is_float(out) then cotangents[#cotangents + 1] = noise(out, k) end
  end
  for k in ipairs(y) do sum = sum + (dy[k] * cotangents[k]):sum():item() end
  return sum
end

local function directions(sources)
  local list = {}
  for i, x in ipairs(sources) do list[i] = noise(x, 1000 + i) end
  return list
end

for _, op in ipairs(samples.ops()) do
  if op.differentiable and #op.inputs > 0 then
    describe("forward mode of " .. op.name, function()
      for k = 1, #op.samples do
        it(("agrees with the gradient: lt.%s(%s)"):format(op.name, op.samples[k]), function()
          local arguments = samples.draw(op, k)
          local sources = floats(arguments)
          if #sources == 0 then return end
          local v = directions(sources)
          local _, gradients = derivatives.derive(op, arguments, "zero")
          if #gradients == 0 then return end
          assert_near("all inputs", push(op, arguments, v), inner(gradients, v):item())
          for i in ipairs(sources) do
            local only = {}
            for j in ipairs(sources) do only[j] = j == i and v[i] end
            assert_near("input " .. i, push(op, arguments, only),
              inner({ gradients[i] }, { v[i] }):item())
          end
        end)

        it(("of the gradient is the second derivative: lt.%s(%s)"):format(op.name, op.samples[k]), function()
          local arguments = samples.draw(op, k)
          local sources = floats(arguments)
          if #sources == 0 or #select(2, derivatives.derive(op, arguments)) == 0 then return end
          local v = directions(sources)
          local second = inner(derivatives.second_gradients(op, arguments), v):item()
          local _, dy = lt.jvp(function(...)
            return derivatives.second_value(op, derivatives.with(arguments, { ... }))
          end, sources, v)
          assert_near("forward over reverse", dy:item(), second)
        end)
      end
    end)
  end
end
