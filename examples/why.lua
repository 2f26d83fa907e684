-- Eight gradients that are not there, and what luatape says of each: the cause, its line, and what
-- to write instead. docs/why.md has them all, with the repairs.
--
--     luatape examples/why.lua
local lt = require "luatape"
local nn = lt.nn

lt.manual_seed(1)

local function show(title, why)
  print(("%s\n  code %s, op %s, where %s\n"):format(title, why.code, why.op, why.where))
  print(("  %s\n"):format(tostring(why):gsub("\n", "\n  ")))
end

local x = lt.randn(4, 2)
local model = nn.Sequential { nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1) }
local weight = model:parameters()[1]

do
  local prediction = model(x) -- no tape listens yet
  local tape <close> = lt.tape()
  show("1. The forward pass before the tape", tape:explain(prediction:mean(), weight))
end

do
  local tape <close> = lt.tape()
  local hidden = model[2](model[1](x))
  local loss = model[3](hidden:detach()):mean() -- for the second layer alone
  show("2. A deliberate cut", tape:explain(loss, weight))
end

do
  local tape <close> = lt.tape()
  local loss = model(x):mean()
  local scale = loss:item() -- a number has no past
  show("3. A value that left as a number", tape:explain(lt.ones(2) * scale, weight))
end

do
  local w = lt.variable({ 1, 2 }, { name = "w" })
  w = w - 0.1 * lt.ones(2) -- a new tensor, and not a variable
  local tape <close> = lt.tape()
  show("4. A step that made a new tensor", tape:explain((w * w):sum(), w))
end

do
  local tape <close> = lt.tape()
  local sure = model(x):gt(0.5) -- a step has no slope
  show("5. A comparison on the way", tape:explain(sure:to("float32"):mean(), weight))
end

do
  local heads = { nn.Linear(2, 1), nn.Linear(2, 1) }
  heads[2].weight.name = "second.weight"
  local tape <close> = lt.tape()
  local first = heads[1](x)
  local second = heads[2](x) -- never used again
  show("6. A head that the loss leaves out", tape:explain(first:mean(), heads[2].weight))
  assert(#second == 4)
end

do
  local w = lt.variable({ 1, 2 }, { name = "w" })
  local tape <close> = lt.tape()
  local gate = lt.stop_gradient(w) -- its share is missing
  show("7. One of two ways is cut", tape:explain((gate * w):sum(), w))
end

do
  local w = lt.variable({ -1, -2 }, { name = "w" })
  local tape <close> = lt.tape()
  local loss = lt.relu(w):sum() -- all of it below zero
  local _, why = tape:gradient(loss, w)
  show("8. A gradient of zeros", why)
end
