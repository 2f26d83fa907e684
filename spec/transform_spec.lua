-- Transforms of functions: against derivatives written by hand, against each other, nested.
local lt = require "luatape"
local values = require "spec.values"

local function near(expected, got, tolerance)
  expected = values.is_tensor(expected) and expected or lt.tensor(expected, { dtype = got.dtype })
  assert.same(expected.shape, got.shape)
  local distance = expected:numel() > 0 and (expected - got):abs():max():item() or 0
  assert(distance <= (tolerance or 1e-9), ("differ by %g"):format(distance))
end

local function assert_fails(text, f, ...)
  local ok, message = pcall(f, ...)
  assert(not ok, "was accepted")
  assert(tostring(message):find(text, 1, true), ("no '%s' in: %s"):format(text, tostring(message)))
end

local function normal(...) return lt.randn({ ... }, { dtype = "float64" }) end

describe("transforms", function()
  local x, A
  before_each(function()
    lt.manual_seed(11)
    x, A = normal(4), normal(3, 4)
  end)

  it("grad is the gradient, by argument", function()
    local f = function(a, b) return (a * a * b):sum(), "aux", a end
    local b = normal(4)
    local g, aux, same = lt.grad(f)(x, b)
    near(x * b * 2, g)
    assert.equal("aux", aux)
    near(x, same)
    near(x * x, (lt.grad(f, 2)(x, b)))
    local both = lt.grad(f, { 1, 2 })(x, b)
    near(x * b * 2, both[1])
    near(x * x, both[2])
    local y, again = lt.value_and_grad(f)(x, b)
    near((x * x * b):sum(), y)
    near(g, again)
  end)

  it("grad takes nested tables and answers in their shape", function()
    local params = { layers = { { w = A, b = normal(3) } }, scale = normal() }
    local function loss(p, v)
      return ((p.layers[1].w:matmul(v) + p.layers[1].b) * p.scale):sum()
    end
    local g = lt.grad(loss)(params, x)
    near(params.scale * lt.ones_like(params.layers[1].b), g.layers[1].b)
    assert.same({ 3, 4 }, g.layers[1].w.shape)
    near((A:matmul(x) + params.layers[1].b):sum(), g.scale)
  end)

  it("grad of what does not depend on the argument is zero", function()
    near(lt.zeros_like(x), (lt.grad(function() return A:sum() end)(x)))
  end)

  it("keeps nested derivatives apart", function()
    -- d/dx [x * d/dy (x + y)] = 1, where y is the same tensor as x
    local function inner(v) return function(y) return (v + y):sum() end end
    local g = lt.grad(function(v) return (v * lt.grad(inner(v))(v)):sum() end)(x)
    near(lt.ones_like(x), g)
  end)

  it("gives derivatives of any order", function()
    local f = function(v) return v:tanh():sum() end
    local second = function(v) return (lt.grad(f)(v)):sum() end
    local third = function(v) return (lt.grad(second)(v)):sum() end
    local y = x:tanh()
    local s = 1 - y * y
    near(y * s * -2, (lt.grad(second)(x)))
    near(s * (y * y * 6 - 2), (lt.grad(third)(x)))
  end)

  it("goes through layer_norm, softmax and conv2d three times", function()
    local w, image = normal(2, 1, 2, 2), normal(1, 1, 4, 4)
    local function f(v)
      local h = lt.conv2d(v, w)
      h = lt.layer_norm(h, nil, nil, { normalized_shape = { 3, 3 } }):tanh()
      return (h:reshape(2, 9):softmax(2) * lt.range(1, 9):to "float64"):sum()
    end
    local u, v = normal(1, 1, 4, 4), normal(1, 1, 4, 4)
    local function along(g, d) return function(t) return (g(t) * d):sum() end end
    local first = lt.grad(f)
    local second = lt.grad(along(first, u))
    local third = lt.grad(along(second, v))
    local h = 1e-4
    local expected = (second(image + v * h) - second(image - v * h)) / (2 * h)
    -- third(image) is the gradient of <second, v>; along u it is the difference of second along v
    near((expected * u):sum(), (third(image) * u):sum(), 1e-5)
  end)

  it("vjp pulls back as often as asked", function()
    local y, pull, aux = lt.vjp(function(a, m) return m:matmul(a), 7 end, x, A)
    near(A:matmul(x), y)
    assert.equal(7, aux)
    local dy = normal(3)
    local dx, dA = pull(dy)
    near(A:transpose(1, 2):matmul(dy), dx)
    near(dy:unsqueeze(2) * x, dA)
    near(dx * 2, (pull(dy * 2)))
  end)

  it("jvp pushes forward, also through tables", function()
    local dx = normal(4)
    local y, dy = lt.jvp(function(p) return { a = p.v:exp(), b = { p.v:sum() } } end, { { v = x } },
      { { v = dx } })
    near(x:exp(), y.a)
    near(x:exp() * dx, dy.a)
    near(dx:sum(), dy.b[1])
    local _, none = lt.jvp(function(a, b) return a + b end, { x, x }, { nil, dx })
    near(dx, none)
    assert_fails("jvp: the tangent is float64 3, its primal float64 4", lt.jvp,
      function(a) return a end, x, normal(3))
  end)

  it("jvp, vjp and grad nest in every order", function()
    local f = function(v) return (v:exp() * v:sin()):sum() end
    local v, u = normal(4), normal(4)
    local hv = lt.hvp(f, x, v)
    local _, forward_over_reverse = lt.jvp(lt.grad(f), x, v)
    near(hv, forward_over_reverse)
    local reverse_over_forward = lt.grad(function(t)
      local _, dy = lt.jvp(f, t, v)
      return dy
    end)(x)
    near(hv, reverse_over_forward)
    local _, forward_over_forward = lt.jvp(function(t)
      local _, dy = lt.jvp(f, t, v)
      return dy
    end, x, u)
    near((hv * u):sum(), forward_over_forward)
  end)

  it("jvp of a long program holds few tensors", function()
    local big = normal(1000)
    local function steps(n)
      return function(v)
        for _ = 1, n do v = v:sin() * 1.01 end
        return v
      end
    end
    local function peak(n)
      collectgarbage()
      collectgarbage()
      local before = lt.memory().live
      local most = 0
      lt.jvp(function(v)
        local y = v
        for k = 1, n do
          y = steps(1)(y)
          if k % 50 == 0 then
            collectgarbage()
            most = math.max(most, lt.memory().live - before)
          end
        end
        return y
      end, big, big)
      return most
    end
    local short, long = peak(100), peak(1000)
    assert(long <= short + 100000, ("%d bytes, then %d"):format(short, long))
  end)

  it("jacobian has both shapes, in both modes", function()
    local f = function(v, m) return (m:matmul(v)):tanh():reshape(3, 1) end
    local y = A:matmul(x):tanh()
    local expected = ((1 - y * y):unsqueeze(2) * A):reshape(3, 1, 4)
    for _, mode in ipairs { "forward", "reverse", "auto" } do
      near(expected, (lt.jacobian(f, { mode = mode })(x, A)))
      local both = lt.jacobian(f, { mode = mode, argnums = { 1, 2 } })(x, A)
      assert.same({ 3, 1, 3, 4 }, both[2].shape)
      near(expected, both[1])
    end
    near(expected, (lt.jacobian(f, { mode = "reverse", chunk_size = 2 })(x, A)))
    near(expected, (lt.jacobian(f, { mode = "forward", chunk_size = 3 })(x, A)))
    local tall = lt.jacobian(function(v) return v[1] * A end)(x)
    assert.same({ 3, 4, 4 }, tall.shape)
  end)

  it("tape:jacobian uses the tape up, also in batches", function()
    local tape <close> = lt.tape()
    tape:watch(x)
    local y = A:matmul(x)
    near(A, (tape:jacobian(y, x, { chunk_size = 2 })))
    assert_fails("used up", tape.jacobian, tape, y, x)
    local other <close> = lt.tape()
    other:watch(x)
    local z = normal(2)
    local J, why = other:jacobian(A:matmul(x), z)
    assert.is_nil(J)
    assert.equal("unused", why.code)
  end)

  it("tape:batch_jacobian has a Jacobian for each row", function()
    local rows, W = normal(5, 4), normal(4, 2)
    local tape <close> = lt.tape()
    tape:watch(rows)
    local y = rows:matmul(W):sin()
    local J = tape:batch_jacobian(y, rows)
    local c = rows:matmul(W):cos()
    near(c:reshape(5, 2, 1) * W:transpose(1, 2):reshape(1, 2, 4), J)
    assert_fails("same first size", tape.batch_jacobian, tape, y, normal(4, 4))
  end)

  it("hessian is symmetric and agrees with hvp, also for tables", function()
    local f = function(v) return (A:matmul(v):exp()):sum() end
    local H = lt.hessian(f)(x)
    near(H:transpose(1, 2), H)
    local v = normal(4)
    local hv, g = lt.hvp(f, x, v)
    near(H:matmul(v), hv)
    near((lt.grad(f)(x)), g)
    local h = lt.hessian(function(p) return (p.a * p.a * p.b):sum() end)({ a = x, b = normal(4) })
    near((x * 2):reshape(4, 1) * lt.eye(4, { dtype = "float64" }), h.a.b)
    near(lt.zeros({ 4, 4 }, { dtype = "float64" }), h.b.b)
  end)

  it("names what is wrong with the call", function()
    assert_fails("must return a scalar first, got 4", lt.grad(function(v) return v * 2 end), x)
    assert_fails("grad: takes a function, got nil", lt.grad)
    assert_fails("there is no argument 2", lt.grad(function(v) return v:sum() end, 2), x)
    assert_fails("argnums", lt.grad, print, 0)
    assert_fails("jacobian: unknown option 'nosuch'", lt.jacobian, print, { nosuch = 1 })
    assert_fails("mode must be one of", lt.jacobian, print, { mode = "sideways" })
  end)
end)

describe("vmap", function()
  local X, w
  before_each(function()
    lt.manual_seed(12)
    X, w = normal(5, 4), normal(4)
  end)

  it("maps over the dimensions it is told", function()
    local dot = function(a, b) return (a * b):sum() end
    near(X:matmul(w), (lt.vmap(dot, { in_dims = { 1, false } })(X, w)))
    near(X:matmul(w), (lt.vmap(dot, { in_dims = { 2, false } })(X:transpose(1, 2), w)))
    near(X:transpose(1, 2), (lt.vmap(function(r) return r end, { out_dims = 2 })(X)))
    local a, b = lt.vmap(function(r) return { r:sum(), r * 2 }, r:max() end)(X)
    near(X:sum(2), a[1])
    near(X * 2, a[2])
    near(X:amax(2), b)
    near(X * 2, (lt.vmap(function(p) return p.x * 2 end)({ x = X })))
    near(w:expand(5, 4), (lt.vmap(function() return w end)(X)))
  end)

  it("gives per-sample gradients, of functions and of variables", function()
    local t = normal(5)
    local loss = function(p, r, y) return (r:matmul(p) - y) ^ 2 end
    local g = lt.vmap(lt.grad(loss), { in_dims = { false, 1, 1 } })(w, X, t)
    near((X:matmul(w) - t):reshape(5, 1) * X * 2, g)
    local model = lt.nn.Sequential { lt.nn.Linear(4, 3), lt.nn.Tanh(), lt.nn.Linear(3, 2) }
    model:to "float64"
    local classes = lt.tensor({ 1, 2, 2, 1, 2 }, { dtype = "int64" })
    local function step(r, c)
      local tape <close> = lt.tape()
      local y = lt.cross_entropy(model(r:unsqueeze(1)), c:unsqueeze(1))
      return tape:gradient(y, model:parameters())
    end
    local each = lt.vmap(step)(X, classes)
    for n = 1, 5 do
      local one = step(X[n], classes[n])
      for i, part in ipairs(one) do near(part, each[i][n]) end
    end
  end)

  it("nests, with gradients inside and outside", function()
    local K = normal(3, 4)
    local all = lt.vmap(function(a) return lt.vmap(function(b) return (a * b):exp():sum() end)(K) end)(X)
    near((X:reshape(5, 1, 4) * K):exp():sum(3), all)
    local inside = lt.vmap(function(a)
      return lt.vmap(lt.grad(function(b) return (a * b):exp():sum() end))(K)
    end)(X)
    near((X:reshape(5, 1, 4) * K):exp() * X:reshape(5, 1, 4), inside)
    local outside = lt.grad(function(a)
      return (lt.vmap(function(r) return (r:sin() * w):sum() end)(a)):sum()
    end)(X)
    near(X:cos() * w, outside)
    local mixed = lt.grad(function(v)
      local g = lt.vmap(lt.grad(function(r) return (r:exp() * v):sum() end))(X)
      return g:sum()
    end)(w)
    near(X:exp():sum(1), mixed)
    local forward = lt.vmap(function(r)
      local _, dy = lt.jvp(function(a) return a:exp() end, r, w)
      return dy
    end)(X)
    near(X:exp() * w, forward)
  end)

  it("takes chunks of samples", function()
    local f = function(r) return r:sum(), { r * 2 } end
    local a, b = lt.vmap(f, { chunk_size = 2 })(X)
    near(X:sum(2), a)
    near(X * 2, b[1])
  end)

  it("keeps the types of 0-d samples", function()
    local singles = lt.ones(3)
    local y = lt.vmap(function(s) return s * lt.tensor({ 1, 2 }, { dtype = "float64" }) end)(singles)
    assert.equal("float64", y.dtype)
    local z = lt.vmap(function(s) return s * lt.ones(2) end)(normal(3))
    assert.equal("float32", z.dtype)
  end)

  it("refuses what differs by sample", function()
    assert_fails("stands for the samples of a vmap call",
      lt.vmap(function(r) return r:sum():item() end), X)
    assert_fails("stands for the samples", lt.vmap(function(r) print(r) end), X)
    assert_fails("stands for the samples", lt.vmap(function(r) return r:totable() end), X)
    assert_fails("stands for the samples", lt.vmap(function(r) w[1] = r[1] end), X)
    local kept
    lt.vmap(function(r)
      kept = r
      return r
    end)(X)
    assert_fails("a vmap call that has ended", function() return kept * 2 end)
    assert_fails("arguments 1 and 2 have batches of 5 and 4", lt.vmap(function(a) return a end), X, w)
    assert_fails("no argument has a batch", lt.vmap(function(a) return a end), 3)
    assert_fails("has no dimension 3", lt.vmap(function(a) return a end, { in_dims = 3 }), X)
    assert_fails("the batch is empty", lt.vmap(function(a) return a end), lt.zeros(0, 3))
    assert_fails("vmap: unknown option", lt.vmap, print, { nosuch = 1 })
  end)

  it("ends with an error of the function", function()
    assert_fails("my own error", lt.vmap(function() error "my own error" end), X)
    near(X:sum(2), (lt.vmap(function(r) return r:sum() end)(X)))
  end)

  it("names an op without a rule, and loops over it when asked", function()
    local f = function(r) return lt.masked_select(r, lt.tensor({ true, false, true, true })) end
    assert_fails("masked_select: has no batching rule", lt.vmap(f), X)
    near(X[{ {}, { 1, 4, 1 } }]:index_select(2, lt.tensor({ 1, 3, 4 }, { dtype = "int64" })),
      (lt.vmap(f, { fallback = true })(X)))
  end)

  it("draws a mask for each sample, and the same in the gradient", function()
    local ones = lt.ones({ 6, 200 })
    local y, g = lt.vmap(function(r)
      local tape <close> = lt.tape()
      tape:watch(r)
      local out = r:dropout(0.5)
      return out, tape:gradient(out:sum(), r)
    end)(ones)
    near(y, g)
    assert(y[1]:eq(y[2]):all():item() == false)
  end)

  it("refuses a custom gradient that an outer tape would need", function()
    local f = lt.custom_gradient(function(a) return a * 2, function(dy) return dy * 2 end end)
    near(lt.full({ 5, 4 }, 2, { dtype = "float64" }),
      (lt.vmap(lt.grad(function(r) return f(r):sum() end))(X)))
    assert_fails("inside vmap", lt.grad(function(a) return (lt.vmap(f)(a)):sum() end), X)
  end)
end)

describe("checkpoint", function()
  local function block(v, weight) return (v:matmul(weight)):tanh() end

  it("gives the gradients of all it reads, and the same value", function()
    lt.manual_seed(3)
    local x, weight = normal(6, 5), lt.variable(normal(5, 5), { name = "weight" })
    local captured = normal(5)
    local function run(wrap)
      local tape <close> = lt.tape()
      tape:watch(x)
      tape:watch(captured)
      local function f(v) return block(v, weight) * captured, v:sum() end
      local a, b
      if wrap then a, b = lt.checkpoint(f, x) else a, b = f(x) end
      local y = (a * a):sum() + b
      return y, tape:gradient(y, { x, weight, captured })
    end
    local y, g = run(false)
    local z, h = run(true)
    near(y, z, 0)
    for i = 1, 3 do near(g[i], h[i], 1e-12) end
  end)

  it("draws the same random numbers again", function()
    local x = normal(50, 50)
    lt.manual_seed(5)
    local tape <close> = lt.tape()
    tape:watch(x)
    local y = lt.checkpoint(function(v) return v:dropout(0.5) end, x)
    lt.rand(7)
    near(y / x, (tape:gradient(y:sum(), x)), 1e-12)
  end)

  it("can be differentiated twice", function()
    local x = normal(4)
    local f = function(v) return lt.checkpoint(function(t) return (t:exp() * t):sum() end, v) end
    local g = function(v) return (lt.grad(f)(v)):sum() end
    near(x:exp() * (x + 2), (lt.grad(g)(x)))
  end)

  it("lets memory grow with the checkpoints and not with the ops", function()
    local x = lt.randn(100, 100)
    local function peak(blocks, length)
      collectgarbage()
      collectgarbage()
      local before = lt.memory().live
      local tape <close> = lt.tape()
      tape:watch(x)
      local y = x
      for _ = 1, blocks do
        y = lt.checkpoint(function(v)
          for _ = 1, length do v = v:sin() end
          return v
        end, y)
      end
      collectgarbage()
      collectgarbage()
      local held = lt.memory().live - before
      tape:gradient(y:sum(), x)
      return held
    end
    local size = 100 * 100 * 4
    local few, longer, many = peak(5, 10), peak(5, 100), peak(20, 10)
    assert(math.abs(longer - few) < size, ("%d bytes, %d for longer blocks"):format(few, longer))
    assert(many > few + 10 * size, ("%d bytes, %d for more blocks"):format(few, many))
    assert(many < few + 20 * size, ("%d bytes, %d for more blocks"):format(few, many))
  end)

  it("passes an error of the function on, and records again after it", function()
    local x = normal(3)
    local tape <close> = lt.tape()
    tape:watch(x)
    assert_fails("my own error", lt.checkpoint, function() error "my own error" end, x)
    near(lt.ones_like(x), (tape:gradient(x:sum(), x)))
  end)
end)

describe("gradcheck", function()
  it("passes what is right", function()
    assert.is_true(lt.gradcheck(function(a, b) return { a:matmul(b):softmax(2), a:sum() } end,
      { normal(2, 3), normal(3, 2) }))
  end)

  it("names the custom gradient that is wrong, and its line", function()
    local wrong = lt.custom_gradient(function(a) return a:exp(), function(dy) return dy * 2 end end)
    local line = debug.getinfo(1, "l").currentline + 1
    local f = function(a) return wrong(a * 3):sum() end
    local ok, message = pcall(lt.gradcheck, f, normal(3))
    assert.is_false(ok)
    assert(message:find("custom_gradient at [^\n]*transform_spec.lua:" .. line), message)
    assert(message:find "3 of 3 entries differ", message)
    assert(message:find "by the tape", message)
  end)

  it("names a kink and a cut", function()
    local _, kink = pcall(lt.gradcheck, function(a) return (a * 1):relu() end,
      lt.zeros({ 2 }, { dtype = "float64" }))
    assert(kink:find("the gradient of relu at", 1, true), kink)
    local _, cut = pcall(lt.gradcheck, function(a) return a:stop_gradient() * a end, normal(2))
    assert(cut:find("stop_gradient at", 1, true), cut)
    assert(cut:find("cuts a path to input 1", 1, true), cut)
  end)

  it("says what it needs", function()
    assert_fails("float32; differences need float64", lt.gradcheck, print, lt.ones(2))
    assert_fails("no input is a float tensor", lt.gradcheck, print,
      lt.ones({ 2 }, { dtype = "int64" }))
    assert_fails("returns no float tensor", lt.gradcheck, function() return 1 end, normal(2))
  end)
end)
