-- Every kind of derivative on one page: Newton's method with a Hessian, a Jacobian, forward mode
-- through a simulation, gradients per sample on Fisher's irises, and a check of a wrong gradient.
local lt = require "luatape"
lt.set_default_dtype "float64"

-- ---- The Hessian: Newton's method on Rosenbrock's valley ----------------------------------------

local function rosenbrock(x)
  return (1 - x[1]) ^ 2 + 100 * (x[2] - x[1] ^ 2) ^ 2
end

local x = lt.tensor { -1.2, 1 }
for step = 1, 7 do
  local g, H = lt.grad(rosenbrock)(x), lt.hessian(rosenbrock)(x)
  x = x - lt.solve(H, g)
  print(("Newton %d: f = %.2e at (%.6f, %.6f)"):format(step, rosenbrock(x):item(),
    x:get(1), x:get(2)))
end

-- ---- A Jacobian: from polar to flat coordinates --------------------------------------------------

local function flat(p) return lt.stack { p[1] * p[2]:cos(), p[1] * p[2]:sin() } end

local J = lt.jacobian(flat)(lt.tensor { 2, math.pi / 6 })
print(("Jacobian of (r cos a, r sin a), its determinant is r: %.6f"):format(lt.det(J):item()))

-- ---- Forward mode: how far does a throw change with the speed? ----------------------------------

local function throw(speed)
  local vx, vy, px, py = speed * 0.8, speed * 0.6, 0, 0
  while not lt.is_tensor(py) or py:item() >= 0 do
    local drag = 1 - 0.01 * 0.02 * (vx * vx + vy * vy):sqrt()
    vx, vy = vx * drag, vy * drag - 0.01 * 9.81
    px, py = px + 0.01 * vx, py + 0.01 * vy
  end
  return px
end

local distance, change = lt.jvp(throw, lt.tensor(20), lt.tensor(1))
print(("a throw at 20 m/s flies %.2f m, and %.2f m more for each m/s"):format(distance:item(),
  change:item()))

-- ---- Gradients per sample: which iris pulls hardest? --------------------------------------------

local here = arg and arg[0] and arg[0]:match "^(.*)/" or "."
local rows = lt.data.csv(here .. "/data/iris.csv", { dtype = "float64" })
local inputs, labels = rows[{ {}, { 1, 4 } }], rows[{ {}, 5 }]:to "int64" + 1
local weights = { w = lt.zeros(4, 3), b = lt.zeros(3) }

local function loss(p, flower, label)
  return lt.cross_entropy(flower:matmul(p.w) + p.b, label)
end

local each = lt.vmap(lt.grad(loss), { in_dims = { false, 1, 1 } })(weights, inputs, labels)
local norms = (each.w:square():sum { dim = { 2, 3 } } + each.b:square():sum(2)):sqrt()
local _, hardest = norms:max(1)
print(("of %d irises number %d has the largest gradient, %.3f"):format(inputs.shape[1],
  hardest:item(), norms:max():item()))

-- ---- A wrong gradient is found, with its line ---------------------------------------------------

local cube = lt.custom_gradient(function(t)
  return t ^ 3, function(dy) return dy * 2 * t ^ 2 end -- should be 3
end)

local ok, message = pcall(lt.gradcheck, function(t) return cube(t):sum() end, lt.tensor { 1, 2 })
print(ok and "not found!" or message)
