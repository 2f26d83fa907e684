-- Linear algebra: einsum and the contractions against plain loops, decompositions and systems of
-- equations by the identities that they fulfil, batches, empty and singular matrices, messages.
local lt = require "luatape"
local values = require "spec.values"
local samples = require "spec.samples"

local TIGHT = { rtol = 1e-10, atol = 1e-10 }

local function normal(...) return lt.randn({ ... }, { dtype = "float64" }) end

local function eye(n) return lt.eye(n, { dtype = "float64" }) end

---Well-conditioned matrices.
local function regular(...)
  local shape = { ... }
  return normal(...) * 0.25 + eye(shape[#shape]) * 2
end

local function close(got, expected, tol)
  local difference = values.difference("result", got, values.read(expected), nil, tol or TIGHT)
  if difference then error(difference, 2) end
end

local function mt(a) return a.ndim > 1 and a:transpose(-2, -1) or a end

---Reads elements of a tensor by a list of places (from 1).
local function reader(t)
  local plain = values.read(t)
  return function(place)
    local at = 0
    for d, size in ipairs(plain.shape) do at = at * size + place[d] - 1 end
    return plain.data[at + 1]
  end
end

---A tensor filled by f(place), place by place in row-major order.
local function build(shape, f)
  local data, place = {}, {}
  local function walk(d)
    if d > #shape then
      data[#data + 1] = f(place)
      return
    end
    for i = 1, shape[d] do
      place[d] = i
      walk(d + 1)
    end
  end
  walk(1)
  return values.tensor { shape = shape, data = data, dtype = "float64" }
end

-- ---- einsum -------------------------------------------------------------------------------------

---The definition: loops over all letters. `terms` and `out` are lists of letters, `sizes` by letter.
local function plain_einsum(terms, out, sizes, tensors)
  local summed, seen = {}, {}
  for _, letter in ipairs(out) do seen[letter] = true end
  for _, term in ipairs(terms) do
    for _, letter in ipairs(term) do
      if not seen[letter] then summed[#summed + 1], seen[letter] = letter, true end
    end
  end
  local read, shape, at = {}, {}, {}
  for k, t in ipairs(tensors) do read[k] = reader(t) end
  for i, letter in ipairs(out) do shape[i] = sizes[letter] end
  return build(shape, function(place)
    for i, letter in ipairs(out) do at[letter] = place[i] end
    local function sum(d)
      local total = 0.0
      if d <= #summed then
        for i = 1, sizes[summed[d]] do
          at[summed[d]] = i
          total = total + sum(d + 1)
        end
        return total
      end
      total = 1.0
      for k, term in ipairs(terms) do
        local where = {}
        for i, letter in ipairs(term) do
          where[i] = tensors[k].shape[i] == 1 and 1 or at[letter]
        end
        total = total * read[k](where)
      end
      return total
    end
    return sum(1)
  end)
end

---A random equation: letters, ellipses ("1", "2" stand for their dimensions), sizes, tensors.
local function random_equation(random)
  local letters, sizes = { "a", "b", "C", "d", "Z" }, { ["1"] = random(1, 3), ["2"] = random(1, 2) }
  for _, letter in ipairs(letters) do sizes[letter] = random(1, 3) end
  local terms, texts, tensors, times = {}, {}, {}, {}
  local dots = random(1, 3) == 1 and random(1, 2) or 0 -- dimensions of the longest ellipsis
  for k = 1, random(1, 4) do
    local term, text, shape = {}, "", {}
    local n, gap = random(0, 3), dots > 0 and random(0, 3) or -1
    local function ellipsis()
      text = text .. "..."
      for d = dots + 1 - (k == 1 and dots or random(0, dots)), dots do
        term[#term + 1] = tostring(d)
      end
    end
    for i = 1, n do
      if gap == i then ellipsis() end
      term[#term + 1] = letters[random(1, #letters)]
      text = text .. (random(1, 6) == 1 and " " or "") .. term[#term]
    end
    if gap == 0 or gap > n then ellipsis() end
    if k == 1 and dots > 0 and not text:find("...", 1, true) then ellipsis() end
    local own = {}
    for i, letter in ipairs(term) do
      own[letter] = own[letter] or (random(1, 8) == 1 and 1 or sizes[letter])
      shape[i] = own[letter]
      if not letter:match "%d" then times[letter] = (times[letter] or 0) + 1 end
    end
    terms[k], texts[k] = term, text
    tensors[k] = lt.randn(shape, { dtype = "float64" })
    if random(1, 2) == 1 then tensors[k] = mt(mt(tensors[k]):contiguous()) end
  end
  -- the sizes that are really there
  local there = {}
  for k, term in ipairs(terms) do
    for i, letter in ipairs(term) do
      there[letter] = math.max(there[letter] or 1, tensors[k].shape[i])
    end
  end
  local out, equation = {}, table.concat(texts, ",")
  local known = {}
  for letter in pairs(times) do known[#known + 1] = letter end
  table.sort(known)
  local implicit = random(1, 3) == 1
  if implicit or random(1, 4) > 1 then
    for d = 1, dots do out[d] = tostring(d) end
    if not implicit then equation = equation .. (dots > 0 and "->..." or "->") end
  else
    equation = equation .. "->"
  end
  for _, letter in ipairs(known) do
    if implicit and times[letter] == 1 then out[#out + 1] = letter end
  end
  if not implicit then
    for i = #known, 2, -1 do
      local j = random(1, i)
      known[i], known[j] = known[j], known[i]
    end
    for i = 1, random(0, #known) do
      out[#out + 1] = known[i]
      equation = equation .. known[i]
    end
  end
  return equation, terms, out, there, tensors
end

describe("einsum", function()
  before_each(function() lt.manual_seed(7) end)

  it("is the sum that the equation says", function()
    local random = samples.random(20240501)
    for _ = 1, 600 do
      local equation, terms, out, sizes, tensors = random_equation(random)
      if #out <= 8 then
        local fine, message = pcall(function()
          close(lt.einsum(equation, table.unpack(tensors)),
            plain_einsum(terms, out, sizes, tensors))
        end)
        assert(fine, ("%s: %s"):format(equation, tostring(message)))
      end
    end
  end)

  it("takes tensors one by one or as a list, and option first or named", function()
    local a, b = normal(2, 3), normal(3, 4)
    local y = a:matmul(b)
    close(lt.einsum("ij,jk->ik", a, b), y)
    close(lt.einsum("ij,jk->ik", { a, b }), y)
    close(lt.einsum({ a, b }, { equation = "ij,jk->ik" }), y)
  end)

  it("runs chains in an order that needs no large step", function()
    local n = 64
    local a, b, v = normal(n, n), normal(n, n), normal(n)
    close(lt.einsum("ij,jk,kl,l->i", a, b, a, v), a:mv(b:mv(a:mv(v))), { rtol = 1e-9, atol = 1e-9 })
    local parts = {}
    for i = 1, 12 do parts[i] = normal(2, 2) end
    local y = parts[1]
    for i = 2, 12 do y = y:matmul(parts[i]) end
    close(lt.einsum("ab,bc,cd,de,ef,fg,gh,hi,ij,jk,kl,lm->am", parts), y)
    local many = {}
    for i = 1, 10 do many[i] = normal(2) end
    local sum = 1.0
    for i = 1, 10 do sum = sum * many[i]:sum():item() end
    close(lt.einsum("a,b,c,d,e,f,g,h,i,j->", many), lt.tensor(sum, { dtype = "float64" }))
  end)

  it("sums over nothing when a size is 0", function()
    close(lt.einsum("ij,jk->ik", normal(2, 0), normal(0, 3)), lt.zeros({ 2, 3 }, { dtype = "float64" }))
    assert.same({ 0, 3 }, values.read(lt.einsum("ij,jk->ik", normal(0, 2), normal(2, 3))).shape)
  end)

  it("gives a value of its own", function()
    local x = normal(2, 3)
    local y = lt.einsum("ij->ij", x)
    assert.are_not.equal(x, y)
    close(y, x)
  end)

  it("says what is wrong with an equation", function()
    local a, b = normal(2, 3), normal(3, 4)
    for equation, message in pairs {
      ["ij,jk,kl->il"] = "the equation has 3 operands, 2 tensors were given",
      ["ijk,jk->i"] = "operand 1 has 3 letters for a tensor of 2 dimensions %(2x3%)",
      ["i,jk"] = "operand 1 has 1 letters",
      ["ij,ik->jk"] = "'i' has size 3 in operand 2 %(3x4%), and 2 before it",
      ["ii,jk"] = "'i' comes twice in operand 1 with different sizes %(2x3%)",
      ["ij,jk->iz"] = "'z' of the result is in no operand",
      ["ij,jk->ii"] = "'i' comes twice in the result",
      ["ij,jk->i,k"] = "',' in the equation behind the arrow",
      ["ij,j1->i"] = "'1' in the equation is no letter",
      ["ij,jk-i"] = "'%-' in the equation belongs to no arrow",
      ["i.j,jk"] = "a '%.' in the equation belongs to no ellipsis",
      ["......ij,jk"] = "ellipsis '%.%.%.', of which an operand has one at most",
    } do
      assert.error_matches(function() lt.einsum(equation, a, b) end, "einsum: .*" .. message)
    end
    assert.error_matches(function() lt.einsum("ij,jk", a, b:to "float32") end, "einsum: dtypes differ")
    assert.error_matches(function()
      lt.einsum("ab,cd,ef,gh,ij->abcdefghij", a, a, a, a, a)
    end, "einsum: the result has 10 dimensions, at most 8")
    assert.error_matches(function() lt.einsum(("a"):rep(128), a) end, "einsum: operand 1 has 128")
    assert.error_matches(function() lt.einsum("ij->" .. ("i"):rep(124), a) end, "at most 8")
  end)
end)

-- ---- Products -----------------------------------------------------------------------------------

describe("products", function()
  before_each(function() lt.manual_seed(7) end)

  it("kron, outer, cross and vecdot are their definitions", function()
    local a, b = normal(2, 1, 3), normal(3, 2)
    local ra, rb = reader(a), reader(b)
    close(lt.kron(a, b), build({ 2, 3, 6 }, function(p)
      return ra { p[1], (p[2] - 1) // 3 + 1, (p[3] - 1) // 2 + 1 }
        * rb { (p[2] - 1) % 3 + 1, (p[3] - 1) % 2 + 1 }
    end))
    local x, y = normal(4, 3), normal(1, 3)
    local rx, ry = reader(x), reader(y)
    close(lt.cross(x, y), build({ 4, 3 }, function(p)
      local i, j = p[2] % 3 + 1, (p[2] + 1) % 3 + 1
      return rx { p[1], i } * ry { 1, j } - rx { p[1], j } * ry { 1, i }
    end))
    close(lt.vecdot(x, y), (x * y):sum(-1))
    close(lt.vecdot(x, x, { dim = 1 }), (x * x):sum(1))
    close(lt.outer(x[1], y[1]), x[1]:unsqueeze(2) * y)
    assert.same({ { 2, 4 }, { 3, 6 } }, lt.outer(lt.tensor { 2, 3 }, lt.tensor { 1, 2 }):totable())
  end)

  it("addmm and its kin weigh both terms; with beta = 0 the first does not count", function()
    local c, a, b = normal(3), normal(2, 4), normal(4, 3)
    close(lt.addmm(c, a, b, { beta = 2, alpha = -0.5 }), c * 2 - a:matmul(b) * 0.5)
    local nan = lt.full({ 2, 3 }, 0 / 0, { dtype = "float64" })
    close(lt.addmm(nan, a, b, { beta = 0 }), a:matmul(b))
    local tape <close> = lt.tape()
    tape:watch(nan)
    close(tape:gradient(lt.addmm(nan, a, b, { beta = 0 }):sum(), nan), nan:zeros_like())
    close(lt.addmv(normal(1) * 0 + 1, a, b:transpose()[1]), a:mv(b:transpose()[1]) + 1)
    close(lt.addr(c, c, c), c + lt.outer(c, c))
    close(lt.baddbmm(c, a:expand(5, 2, 4), b:expand(5, 4, 3)), (a:matmul(b) + c):expand(5, 2, 3))
    assert.error_matches(function() lt.addmm(normal(3, 3), a, b) end,
      "addmm: input %(3x3%) does not broadcast to the product's shape %(2x3%)")
    assert.error_matches(function() lt.addmm(c, a, a) end, "addmm: inner sizes differ")
    assert.error_matches(function() lt.addmm(c, a, c) end, "addmm: mat1 must have 2 dimensions")
  end)

  it("tensordot contracts the dims that it is given", function()
    local a, b = normal(2, 3, 4), normal(4, 3, 5)
    close(lt.tensordot(a, b, { dims = { { 3, 2 }, { 1, 2 } } }), lt.einsum("abc,cbd->ad", a, b))
    close(lt.tensordot(a, b, { dims = { { 2 }, { -2 } } }), lt.einsum("abc,dbe->acde", a, b))
    close(lt.tensordot(a, b, 1), lt.einsum("abc,cde->abde", a, b))
    close(lt.tensordot(a, a:permute(2, 3, 1), 2), lt.einsum("abc,bcd->ad", a, a:permute(2, 3, 1)))
    close(lt.tensordot(a, b, 0), lt.einsum("abc,def->abcdef", a, b))
    for dims, message in pairs {
      [{ { 1 }, { 1 } }] = "dim 1 of x and dim 1 of other differ in size",
      [{ { 1, 2 }, { 1 } }] = "as many dimensions of other as of x",
      [{ { 4 }, { 1 } }] = "dim 4 is outside 1..3",
      [{ { 0 }, { 1 } }] = "they count from 1",
      [{ { 2, 2 }, { 2, 2 } }] = "dim 2 of x twice",
      [{ { 1 }, 2 }] = "dims must be lists of integers",
      [{ 7 }] = "dims = 7 of tensors of 3 and 3 dimensions",
      [{ -1 }] = "dims = %-1",
    } do
      assert.error_matches(function() lt.tensordot(a, b, { dims = dims }) end,
        "tensordot: .*" .. message)
    end
  end)

  it("matrix_power is the product of so many", function()
    local a = regular(2, 3, 3)
    close(lt.matrix_power(a, 5), a:matmul(a):matmul(a):matmul(a):matmul(a))
    close(lt.matrix_power(a, 0), eye(3):expand(2, 3, 3))
    close(lt.matrix_power(a, -3):matmul(a):matmul(a):matmul(a), eye(3):expand(2, 3, 3))
    assert.are_not.equal(a, lt.matrix_power(a, 1))
    assert.same({ 0, 0 }, values.read(lt.matrix_power(normal(0, 0), 3)).shape)
  end)
end)

-- ---- Triangles and diagonals ----------------------------------------------------------------------

describe("triangles and diagonals", function()
  before_each(function() lt.manual_seed(7) end)

  it("tril and triu keep what is on their side", function()
    for _, shape in ipairs { { 3, 3 }, { 2, 5 }, { 5, 2 }, { 2, 3, 4 }, { 1, 1 } } do
      local x, n = normal(table.unpack(shape)), #shape
      local read, column_first = reader(x), x:transpose():contiguous():transpose()
      for k = -6, 6 do
        local function kept(f)
          return build(shape, function(p) return f(p[n] - p[n - 1]) and read(p) or 0.0 end)
        end
        close(lt.tril(x, k), kept(function(d) return d <= k end))
        close(column_first:triu(k), kept(function(d) return d >= k end))
      end
    end
    assert.same({ { 1, 0 }, { 3, 4 } }, lt.tril(lt.tensor { { 1, 2 }, { 3, 4 } }):totable())
    close(lt.tril(normal(2, 2), math.mininteger), lt.zeros({ 2, 2 }, { dtype = "float64" }))
  end)

  it("diagonal is a view of the place it names", function()
    local x = normal(3, 2, 4)
    local read = reader(x)
    for k = -3, 4 do
      local length = math.max(0, math.min(3 + math.min(k, 0), 4 - math.max(k, 0)))
      close(x:diagonal { offset = k, dim1 = 1, dim2 = 3 }, build({ 2, length }, function(p)
        return read { p[2] - math.min(k, 0), p[1], p[2] + math.max(k, 0) }
      end))
    end
    local v = lt.zeros({ 2, 2 })
    v:diagonal():assign { 1, 2 }
    assert.same({ { 1, 0 }, { 0, 2 } }, v:totable())
    lt.diag(v):assign { 5, 5 } -- a copy
    assert.same({ { 1, 0 }, { 0, 2 } }, v:totable())
    assert.error_matches(function() x:diagonal { dim1 = 2, dim2 = -2 } end,
      "diagonal: dim1 and dim2 are both 2")
  end)

  it("diag_embed and diag are undone by diagonal", function()
    local x = normal(2, 3)
    for k = -2, 2 do
      local y = lt.diag_embed(x, { offset = k, dim1 = 3, dim2 = 1 })
      assert.same({ 3 + math.abs(k), 2, 3 + math.abs(k) }, values.read(y).shape)
      close(y:diagonal { offset = k, dim1 = 3, dim2 = 1 }, x)
      close(y:sum(), x:sum())
      close(lt.diag(lt.diag(x[1], k), k), x[1])
    end
    assert.equal(5, lt.trace(lt.tensor({ { 1, 2, 3 }, { 3, 4, 5 } }, { dtype = "int64" })):item())
    assert.error_matches(function() lt.diag_embed(x, 1 << 50) end, "diag_embed: .*too many elements")
    assert.error_matches(function() lt.diag(x[1], math.mininteger) end, "diag: .*too many elements")
  end)
end)

-- ---- Systems of equations -------------------------------------------------------------------------

describe("systems of equations", function()
  before_each(function() lt.manual_seed(7) end)

  it("inv is the inverse, also in float32 and of transposed matrices", function()
    for _, n in ipairs { 1, 2, 5, 40, 150 } do
      local a = regular(n, n) + eye(n) * (n / 10)
      close(a:matmul(lt.inv(a)), eye(n))
      close(lt.inv(mt(a)), mt(lt.inv(a)))
      close(lt.inv(a:to "float32"):to "float64", lt.inv(a), { rtol = 1e-3, atol = 1e-3 })
    end
  end)

  it("solve takes matrices, vectors and batches of both, as PyTorch tells them apart", function()
    local a, many = regular(3, 3), regular(4, 1, 3, 3)
    for _, b in ipairs { normal(3, 2), normal(3, 3), normal(2, 3, 5), mt(normal(2, 3)) } do
      close(a:matmul(lt.solve(a, b)), b)
      close(many:matmul(lt.solve(many, b)), b:expand(lt.solve(many, b).shape))
    end
    local b = normal(3)
    close(a:matmul(lt.solve(a, b)), b)
    assert.same({ 4, 1, 3 }, values.read(lt.solve(many, b)).shape)
    local vectors = normal(4, 1, 3) -- one for each matrix
    close(many:matmul(lt.solve(many, vectors):unsqueeze(-1)):squeeze(-1), vectors)
    local rows = normal(2, 3)
    close(lt.solve(a, rows, { left = false }):matmul(a), rows)
    for _, size in ipairs { { 16, 65 }, { 17, 1 }, { 40, 3 } } do -- around where LAPACK takes over
      a, b = regular(size[1], size[1]) + eye(size[1]) * 4, normal(size[1], size[2])
      close(a:matmul(lt.solve(a, b)), b)
    end
    a = regular(3, 3)
    -- a matrix that serves several right sides
    local several = normal(5, 3, 2)
    close(lt.solve(a:expand(5, 3, 3), several), lt.inv(a):matmul(several))
  end)

  it("solve_triangular reads one triangle", function()
    for _, upper in ipairs { true, false } do
      for _, unit in ipairs { true, false } do
        local n = upper == unit and 4 or 20
        local a = regular(2, n, n) * 0.5 + eye(n)
        local t = upper and lt.triu(a) or lt.tril(a)
        if unit then t = t - lt.diag_embed(t:diagonal { dim1 = -2, dim2 = -1 }) + eye(n) end
        local function options(left) return { upper = upper, left = left, unitriangular = unit } end
        local b = normal(n, 3)
        close(t:matmul(lt.solve_triangular(a, b, options(true))), b:expand(2, n, 3))
        b = normal(3, 1, 5, n)
        close(lt.solve_triangular(a, b, options(false)):matmul(t), b:expand(3, 2, 5, n))
      end
    end
    local x = lt.solve_triangular(lt.zeros({ 1, 1 }), lt.ones({ 1, 1 }), { upper = true })
    assert.equal(math.huge, x:item())
  end)

  it("lstsq and pinv are the solution of least squares, the shortest one", function()
    local a, b = normal(2, 6, 3), normal(6, 2)
    local x = lt.lstsq(a, b)
    close(mt(a):matmul(a:matmul(x) - b), lt.zeros({ 2, 3, 2 }, { dtype = "float64" }))
    local p = lt.pinv(mt(a))
    close(mt(a):matmul(p):matmul(mt(a)), mt(a))
    close(p:matmul(mt(a)), mt(p:matmul(mt(a))))
    local low = normal(4, 1):matmul(normal(1, 5)) -- of rank 1
    p = lt.pinv(low)
    close(p:matmul(low):matmul(p), p)
    close(low:matmul(p):matmul(low), low)
    close(lt.lstsq(normal(2, 3) * 0, normal(2)), lt.zeros({ 3 }, { dtype = "float64" }))
    assert.same({ 3, 0 }, values.read(lt.pinv(normal(0, 3))).shape)
    local s = lt.tensor({ { 1, 0 }, { 0, 0.25 } }, { dtype = "float64" })
    assert.same({ { 1, 0 }, { 0, 0 } }, lt.pinv(s, { rtol = 0.5 }):totable())
  end)

  it("det and slogdet agree with the sum over permutations", function()
    local a = normal(4, 3, 3)
    local read = reader(a)
    local expected = build({ 4 }, function(p)
      local i = p[1]
      local function m(j, k) return read { i, j, k } end
      return m(1, 1) * (m(2, 2) * m(3, 3) - m(2, 3) * m(3, 2))
        - m(1, 2) * (m(2, 1) * m(3, 3) - m(2, 3) * m(3, 1))
        + m(1, 3) * (m(2, 1) * m(3, 2) - m(2, 2) * m(3, 1))
    end)
    close(lt.det(a), expected)
    local sign, log = lt.slogdet(a)
    close(sign * log:exp(), expected)
    local big = eye(200) * 1e3 -- det overflows
    assert.equal(1, (lt.slogdet(big)):item())
    close(select(2, lt.slogdet(big)), lt.tensor(200 * math.log(1e3), { dtype = "float64" }))
    sign, log = lt.slogdet(lt.ones({ 2, 2 }))
    assert.same({ 0, -math.huge }, { sign:item(), log:item() })
  end)

  it("the gradient of det is the matrix of cofactors, of singular matrices too", function()
    local function gradient(a)
      local tape <close> = lt.tape()
      tape:watch(a)
      return tape:gradient(lt.det(a):sum(), a)
    end
    local function tensor(t) return lt.tensor(t, { dtype = "float64" }) end
    close(gradient(tensor { { 1, 2 }, { 2, 4 } }), tensor { { 4, -2 }, { -2, 1 } })
    close(gradient(tensor { { 0 } }), tensor { { 1 } })
    close(gradient(lt.zeros({ 3, 3 }, { dtype = "float64" })), lt.zeros({ 3, 3 }, { dtype = "float64" }))
    -- one of rank n - 1, next to a regular one
    local a = normal(2, 4, 4)
    a[2][4] = a[2][1] - a[2][2] * 2
    local read = reader(a)
    close(gradient(a), build({ 2, 4, 4 }, function(p)
      local minor = build({ 3, 3 }, function(q)
        return read { p[1], q[1] + (q[1] >= p[2] and 1 or 0), q[2] + (q[2] >= p[3] and 1 or 0) }
      end)
      return lt.det(minor):item() * (-1) ^ (p[2] + p[3])
    end), { rtol = 1e-8, atol = 1e-8 })
  end)
end)

-- ---- Decompositions ---------------------------------------------------------------------------------

describe("decompositions", function()
  before_each(function() lt.manual_seed(7) end)

  local shapes = { { 1, 1 }, { 4, 4 }, { 6, 3 }, { 3, 6 }, { 2, 5, 3 }, { 2, 2, 3, 5 }, { 70, 60 } }

  it("cholesky gives a triangle whose square is the matrix", function()
    for _, n in ipairs { 1, 3, 50 } do
      local m = normal(2, n, n)
      local a = m:matmul(mt(m)) + eye(n)
      local l, u = lt.cholesky(a), lt.cholesky(a, { upper = true })
      close(l:matmul(mt(l)), a)
      close(l, lt.tril(l))
      close(u, mt(l))
      close(lt.cholesky(a:to "float32"):to "float64", l, { rtol = 1e-2, atol = 1e-2 })
    end
  end)

  it("qr gives orthonormal columns and a triangle", function()
    for _, shape in ipairs(shapes) do
      local a = normal(table.unpack(shape))
      local m, n = shape[#shape - 1], shape[#shape]
      for _, mode in ipairs { "reduced", "complete" } do
        local q, r = lt.qr(a, { mode = mode })
        local k = mode == "complete" and m or math.min(m, n)
        assert.same({ m, k }, { q.shape[#shape - 1], q.shape[#shape] })
        close(q:matmul(r), a)
        close(mt(q):matmul(q), eye(k):expand(mt(q):matmul(q).shape))
        close(r, lt.triu(r))
      end
      local none, r = lt.qr(a, { mode = "r" })
      assert.same({ 0 }, values.read(none).shape)
      close(r, select(2, lt.qr(a)))
    end
  end)

  it("eigh gives rising eigenvalues and orthonormal eigenvectors", function()
    for _, n in ipairs { 1, 2, 30 } do
      local a = normal(3, n, n)
      a = a + mt(a)
      local w, v = lt.eigh(a)
      close(a:matmul(v), v * w:unsqueeze(-2))
      close(mt(v):matmul(v), eye(n):expand(3, n, n))
      close(w, (w:sort()))
      close(lt.eigvalsh(a), w)
    end
  end)

  it("eigenvalues have a gradient where they are equal", function()
    local a = eye(3)
    local tape <close> = lt.tape()
    tape:watch(a)
    close(tape:gradient(lt.eigvalsh(a):sum(), a), eye(3))
  end)

  it("svd gives falling singular values and orthonormal vectors", function()
    for _, shape in ipairs(shapes) do
      local a = normal(table.unpack(shape))
      local m, n = shape[#shape - 1], shape[#shape]
      local u, s, vh = lt.svd(a)
      close((u * s:unsqueeze(-2)):matmul(vh), a)
      close(mt(u):matmul(u), eye(math.min(m, n)):expand(mt(u):matmul(u).shape))
      close(s, (s:sort { descending = true }))
      close(lt.svdvals(a), s)
      u, s, vh = lt.svd(a, { full_matrices = true })
      close(u:matmul(mt(u)), eye(m):expand(u.shape))
      close(vh:matmul(mt(vh)), eye(n):expand(vh.shape))
      local k = math.min(m, n)
      close((u:narrow(-1, 1, k) * s:unsqueeze(-2)):matmul(vh:narrow(-2, 1, k)), a)
    end
  end)

  it("are the same for any number of threads", function()
    local a, t = regular(90, 90), normal(7, 40, 50)
    local before, first = lt.num_threads(), nil
    for n = 1, 3 do
      lt.set_num_threads(n)
      local results = { lt.inv(a), lt.solve(a, a), lt.det(a), lt.einsum("bij,bkj,il->bkl", t, t, t[1]) }
      for _, r in ipairs { lt.svd(a) } do results[#results + 1] = r end
      for i, r in ipairs(results) do results[i] = values.read(r).data end
      first = first or results
      assert.same(first, results)
    end
    lt.set_num_threads(before)
  end)

  it("take empty matrices and empty batches", function()
    assert.equal(1, lt.det(normal(0, 0)):item())
    close(lt.det(normal(2, 0, 0)), lt.ones({ 2 }, { dtype = "float64" }))
    assert.same({ 0, 0 }, values.read(lt.inv(normal(0, 0))).shape)
    assert.same({ 0, 3, 3 }, values.read(lt.inv(normal(0, 3, 3))).shape)
    assert.same({ 0, 3 }, values.read(lt.solve(normal(0, 0), normal(0, 3))).shape)
    assert.same({ 0, 2, 2 }, values.read(lt.cholesky(normal(0, 2, 2))).shape)
    local q, r = lt.qr(normal(3, 0), { mode = "complete" })
    close(q, eye(3))
    assert.same({ 3, 0 }, values.read(r).shape)
    local u, s, vh = lt.svd(normal(0, 2), { full_matrices = true })
    assert.same({ 0, 0 }, values.read(u).shape)
    assert.same({ 0 }, values.read(s).shape)
    close(vh, eye(2))
    local w, v = lt.eigh(normal(2, 0, 0))
    assert.same({ { 2, 0 }, { 2, 0, 0 } }, { values.read(w).shape, values.read(v).shape })
  end)
end)

-- ---- Messages ---------------------------------------------------------------------------------------

describe("linear algebra says", function()
  before_each(function() lt.manual_seed(7) end)

  it("which matrix is singular, or not positive definite", function()
    local singular = lt.stack({ regular(2, 2), lt.ones({ 2, 2 }, { dtype = "float64" }) }, { dim = 1 })
    for name, f in pairs {
      inv = lt.inv, solve = function(a) return lt.solve(a, normal(2, 2)) end,
    } do
      assert.error_matches(function() f(singular) end, name .. ": matrix 2 of 2 is singular")
      assert.error_matches(function() f(singular[2]) end, name .. ": the matrix is singular")
    end
    assert.error_matches(function() lt.cholesky(lt.tensor { { 1, 2 }, { 2, 1 } }) end,
      "cholesky: the matrix is not positive definite %(its leading minor of order 2 is not%)")
    assert.error_matches(function() lt.cholesky(lt.stack({ eye(2), eye(2) * 0 }, { dim = 1 })) end,
      "cholesky: matrix 2 of 2 is not")
    local nan = lt.full({ 3, 3 }, 0 / 0)
    assert.error_matches(function() lt.svd(nan) end, "svd: the matrix holds NaN or infinity")
    assert.error_matches(function() lt.eigh(nan) end, "eigh: the matrix holds NaN or infinity")
    assert.error_matches(function() lt.pinv(nan / 0) end, "pinv: the matrix holds NaN or infinity")
    assert.error_matches(function() lt.cholesky(nan) end, "not positive definite")
  end)

  it("what has the wrong shape", function()
    for _, name in ipairs { "inv", "det", "slogdet", "cholesky", "eigh", "eigvalsh" } do
      assert.error_matches(function() lt[name](normal(2, 3)) end,
        name .. ": x must be a square matrix, or a batch of them, got 2x3")
      assert.error_matches(function() lt[name](normal(2)) end, name .. ": x must be a square matrix")
    end
    assert.error_matches(function() lt.matrix_power(normal(2, 3), 2) end, "matrix_power: x must be a sq")
    for _, name in ipairs { "qr", "svd", "svdvals", "pinv", "tril", "triu" } do
      assert.error_matches(function() lt[name](normal(2)) end, name .. ": x must be a matrix")
    end
    local a = regular(3, 3)
    assert.error_matches(function() lt.solve(a, normal(2, 3)) end,
      "solve: b has another number of rows than a %(a 3x3, b 2x3%)")
    assert.error_matches(function() lt.solve(regular(2, 3, 3), normal(4, 3, 3)) end,
      "solve: batch sizes do not broadcast %(a 2x3x3, b 4x3x3%)")
    assert.error_matches(function() lt.solve(a, normal(3):to "float32") end, "solve: dtypes differ")
    assert.error_matches(function() lt.solve_triangular(a, normal(3), { upper = true }) end,
      "solve_triangular: b must be a matrix")
    assert.error_matches(function() lt.solve_triangular(a, normal(3, 2)) end,
      "solve_triangular: upper is missing")
    assert.error_matches(function() lt.lstsq(normal(3, 2), normal(2)) end, "lstsq: b has another")
  end)

  it("which results have no gradient", function()
    local function gradient(f)
      local x = normal(4, 2)
      local tape <close> = lt.tape()
      tape:watch(x)
      tape:gradient(select(2, f(x)):sum(), x)
    end
    assert.error_matches(function()
      gradient(function(x) return lt.qr(x, { mode = "complete" }) end)
    end, "qr: mode 'complete' has no gradient for m > n; mode 'reduced' has")
    assert.error_matches(function()
      gradient(function(x) return lt.qr(x, { mode = "r" }) end)
    end, "qr: mode 'r' has no gradient")
    assert.error_matches(function()
      gradient(function(x) return lt.svd(x, { full_matrices = true }) end)
    end, "svd: full_matrices = true has no gradient unless m = n")
  end)

  it("that LAPACK is missing, and only then", function()
    local program = os.getenv "LUATAPE_PROGRAM"
      or (os.getenv "LUATAPE_BUILD" or "build") .. "/luatape"
    local function run(library, code)
      local pipe = assert(io.popen(("env -u LUA_INIT LUATAPE_LAPACK='%s' '%s' -e '%s' 2>&1"):format(
        library, program, code)))
      local text = pipe:read "a"
      pipe:close()
      return text
    end
    assert.matches("cholesky: needs LAPACK %(apt%-get install liblapack3%)",
      run("/nowhere.so", "lt.cholesky(lt.eye(2))"))
    assert.matches("inv: the LAPACK library lacks routines",
      run("libm.so.6", "lt.inv(lt.eye(2))"))
    assert.matches("^1%.0", run("/nowhere.so", "print(lt.det(lt.zeros({0, 0})):item())"))
    assert.matches("^2%.0", run("liblapack.so.3", "print(lt.det(lt.eye(2) * 2 ^ 0.5):round():item())"))
  end)
end)
