-- Every golden case against luatape: values, gradients, and gradients of gradients by nested tapes,
-- in the case's float type and, where the case allows it, in the other.
-- LUATAPE_GOLDEN names another folder of cases, LUATAPE_GOLDEN_FAMILY other families.
local lt = require "luatape"
local values = require "spec.values"
local calls = require "spec.golden_calls"

local folder = os.getenv "LUATAPE_GOLDEN" or "spec/golden"
local families = dofile "spec/golden/complete.lua"
if os.getenv "LUATAPE_GOLDEN_FAMILY" then
  families = {}
  for name in os.getenv("LUATAPE_GOLDEN_FAMILY"):gmatch "[%w_]+" do
    families[#families + 1] = name
  end
end

---Tensors of a list that may hold false, the others left out; with the place of each.
local function present(list, dtype)
  local tensors, places = {}, {}
  for i, t in ipairs(list or {}) do
    if t then
      tensors[#tensors + 1] = values.is_tensor(t) and t or values.tensor(t, dtype)
      places[#places + 1] = i
    end
  end
  return tensors, places
end

local function at(list, places)
  local picked = {}
  for k, i in ipairs(places) do picked[k] = list[i] end
  return picked
end

local function watch(tape, tensors)
  for _, t in ipairs(tensors) do tape:watch(t) end
end

---Outputs of a case, and its gradients with respect to `sources`.
local function run(case, arguments, sources, dtype, unconnected)
  local cotangents, targets = present(case.cotangents, dtype)
  local tape <close> = lt.tape()
  watch(tape, sources)
  local outputs = calls.run(case, arguments, dtype)
  if #sources == 0 or #targets == 0 then return outputs, {} end
  return outputs, tape:gradient(at(outputs, targets), sources,
    { output_gradients = cotangents, unconnected_gradients = unconnected })
end

---The gradients of sum_i <grads_i, v_i>. What is not connected counts as zero.
local function hessian_vector(case, arguments, dtype)
  local v, places = present(case.hvp.v, dtype)
  local sources = at(arguments, places)
  local tape <close> = lt.tape()
  watch(tape, sources)
  local _, gradients = run(case, arguments, sources, dtype, "zero")
  local sum = 0
  for i, g in ipairs(gradients) do sum = sum + (g * v[i]):sum() end
  return tape:gradient(sum, sources, { unconnected_gradients = "zero" }), places
end

---Adds to `found` what is wrong with a case in one float type.
local function check(case, dtype, tol, found)
  local function compare(what, i, got, ref)
    if ref then
      local name = ("%s %s[%d]"):format(dtype, what, i)
      found[#found + 1] = values.difference(name, got, ref, dtype, tol)
    elseif got then
      found[#found + 1] = ("%s %s[%d]: there should be none"):format(dtype, what, i)
    end
  end

  local arguments = calls.arguments(case, dtype)
  local _, places = present(case.grads, dtype)
  local outputs, gradients = run(case, arguments, at(arguments, places), dtype)
  local expected = calls.expected(case)
  for i, ref in ipairs(expected) do compare("outputs", i, outputs[i], ref) end
  if outputs.n > #expected then
    found[#found + 1] = ("%s: %d outputs, expected %d"):format(dtype, outputs.n, #expected)
  end
  for k, i in ipairs(places) do compare("grads", i, gradients[k], case.grads[i]) end
  if case.hvp then
    local second, hvp_places = hessian_vector(case, arguments, dtype)
    for k, i in ipairs(hvp_places) do compare("hvp", i, second[k], case.hvp.result[i]) end
  end
end

for _, family in ipairs(families) do
  describe("golden " .. family, function()
    local cases = dofile(("%s/%s.lua"):format(folder, family))
    local passed = 0

    it("holds cases", function() assert.is_true(#cases > 0) end)

    for _, case in ipairs(cases) do
      it(case.name, function()
        local found = {}
        check(case, case.dtype, case.tol, found)
        if case.tol_alt then
          check(case, case.dtype == "float64" and "float32" or "float64", case.tol_alt, found)
        end
        assert(#found == 0, table.concat(found, "\n"))
        passed = passed + 1
      end)
    end

    teardown(function() print(("\ngolden %s: %d of %d"):format(family, passed, #cases)) end)
  end)
end
