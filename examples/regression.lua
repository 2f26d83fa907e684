-- Fits a curve to noisy points with a small network and draws both as text.
--
--     luatape examples/regression.lua
local lt = require "luatape"
local nn, optim = lt.nn, lt.optim

local small = os.getenv "LUATAPE_EXAMPLE_SMALL"
local steps = small and 300 or 1500
local points, noise = 120, 0.15

lt.manual_seed(7)

local function curve(x) return (2 * x):sin() + 0.3 * x end

-- Rows are samples: 120 places between -3 and 3, and what was measured there.
local x = lt.rand(points, 1) * 6 - 3
local y = curve(x) + noise * lt.randn(points, 1)

local model = nn.Sequential {
  nn.Linear(1, 32), nn.Tanh(),
  nn.Linear(32, 32), nn.Tanh(),
  nn.Linear(32, 1),
}
local variables = model:parameters()
local optimizer = optim.Adam { lr = 0.01 }

for step = 1, steps do
  local tape <close> = lt.tape()
  local loss = lt.mse_loss(model(x), y)
  optimizer:apply_gradients(tape:gradient(loss, variables), variables)
  if step == 1 or step % (steps // 5) == 0 then
    print(("step %4d  loss %.4f"):format(step, loss:item()))
  end
end

-- How near is the fit to the curve itself, which it has never seen without noise?
local columns, rows = 73, 21
local grid = lt.linspace(-3, 3, columns):reshape(columns, 1)
local fit = model(grid)
local distance = lt.mse_loss(fit, curve(grid)):sqrt():item()
print(("root mean square distance from the true curve: %.3f (noise in the data: %.2f)\n"):format(
  distance, noise))

-- The picture: a row of characters per step of height, the highest first.
local low, high = y:min():item(), y:max():item()
local canvas = {}
for r = 1, rows do
  canvas[r] = {}
  for c = 1, columns do canvas[r][c] = " " end
end

local function draw(px, py, sign)
  local c = math.floor((px + 3) / 6 * (columns - 1) + 1.5)
  local r = math.floor((high - py) / (high - low) * (rows - 1) + 1.5)
  if canvas[r] and canvas[r][c] then canvas[r][c] = sign end
end

for i = 1, points do draw(x:get(i, 1), y:get(i, 1), ".") end
for i = 1, columns do draw(grid:get(i, 1), fit:get(i, 1), "#") end

for r = 1, rows do
  local height = high - (r - 1) / (rows - 1) * (high - low)
  print(("%6.2f |%s"):format(height, table.concat(canvas[r])))
end
print("       +" .. ("-"):rep(columns))
print(("%8s%-" .. columns // 2 .. "s%-" .. columns // 2 .. "s%s"):format("", "-3", "0", "3"))
print "\n. measured   # fitted"
