-- Ops on images against plain loops: resizing in every mode, blocks as columns and back, channels
-- and pixels in other places, normalisation across channels; and what is refused.
local lt = require "luatape"
local values = require "spec.values"
local samples = require "spec.samples"

local DOUBLE = { rtol = 1e-12, atol = 1e-12 }
local SINGLE = { rtol = 1e-5, atol = 1e-5 }

local function normal(name, shape, dtype)
  local draw = samples.generators(samples.random(samples.seed(name, #shape)))
  return draw.normal(table.unpack(shape)):to(dtype or "float64")
end

local function assert_values(what, t, shape, data, tol)
  local difference = values.difference(what, t, { shape = shape, dtype = t.dtype, data = data },
    nil, tol or DOUBLE)
  assert(not difference, difference)
end

local function refused(words, f, ...)
  local fine, message = pcall(f, ...)
  assert(not fine, "was accepted")
  for _, word in ipairs(words) do
    assert(message:find(word, 1, true), ("no '%s' in: %s"):format(word, message))
  end
end

---The gradient of a linear op is its adjoint: <f(x), dy> = <x, f'(dy)> in the sum.
local function check_adjoint(what, f, x)
  local tape <close> = lt.tape()
  tape:watch(x)
  local y = f(x)
  local dy = normal(what .. " adjoint", y.shape, x.dtype)
  local dx = tape:gradient(y, x, { output_gradients = dy })
  local a, b = (y * dy):sum():item(), (x * dx):sum():item()
  local tol = x.dtype == "float64" and 1e-11 or 1e-4
  assert(math.abs(a - b) <= tol * math.max(1, math.abs(a)), ("%s: %.15g and %.15g"):format(what, a, b))
end

-- ---- interpolate --------------------------------------------------------------------------------

---Weights of one axis: for each output a list of { place from 1, weight }. PyTorch's coordinates.
local function weights(kernel, n, out, o)
  local list = {}
  local step = o.factor and 1 / o.factor or n / out
  local function take(i, w)
    i = math.max(0, math.min(n - 1, i))
    list[#list + 1] = { i + 1, w }
  end
  local result = {}
  for i = 0, out - 1 do
    list = {}
    local at
    if o.align_corners then at = out > 1 and i * (n - 1) / (out - 1) or 0
    else at = (i + 0.5) * step - 0.5 end
    if kernel == "nearest" then
      take(math.floor(o.factor and i / o.factor or i * n // out), 1)
    elseif kernel == "nearest-exact" then
      take(math.floor(o.factor and (i + 0.5) / o.factor or (2 * i + 1) * n // (2 * out)), 1)
    elseif kernel == "linear" then
      if n == out then
        take(i, 1)
      else
        at = math.max(at, 0)
        local low = math.min(math.floor(at), n - 1)
        local part = math.min(at - low, 1)
        take(low, 1 - part)
        take(low + 1, part)
      end
    elseif kernel == "cubic" then
      local low = math.min(math.floor(at), n - 1)
      local t, a = math.min(at - low, 1), -0.75
      for k = -1, 2 do
        local x = math.abs(t - k)
        local w = x <= 1 and (a + 2) * x ^ 3 - (a + 3) * x ^ 2 + 1
          or a * x ^ 3 - 5 * a * x ^ 2 + 8 * a * x - 4 * a
        take(low + k, w)
      end
    else -- area
      local first, last = i * n // out, -(-(i + 1) * n // out) - 1
      for k = first, last do take(k, 1 / (last - first + 1)) end
    end
    result[i + 1] = list
  end
  return result
end

---Planes of up to three axes, as a list, by tables of weights.
local function resample(x, planes, n, out, tables)
  local y = {}
  local size = n[1] * n[2] * n[3]
  for plane = 0, planes - 1 do
    for d = 1, out[1] do
      for h = 1, out[2] do
        for w = 1, out[3] do
          local sum = 0
          for _, a in ipairs(tables[1][d]) do
            for _, b in ipairs(tables[2][h]) do
              for _, c in ipairs(tables[3][w]) do
                local at = plane * size + ((a[1] - 1) * n[2] + b[1] - 1) * n[3] + c[1]
                sum = sum + a[2] * b[2] * c[2] * x[at]
              end
            end
          end
          y[#y + 1] = sum
        end
      end
    end
  end
  return y
end

local KERNEL = { linear = "linear", bilinear = "linear", trilinear = "linear", bicubic = "cubic" }

---interpolate on an x of these spatial sizes against the reference. `to` are sizes, or with
---`by_factor` factors.
local function check_interpolate(mode, sizes, to, by_factor, options, dtype)
  local dims = #sizes
  local shape, out_shape = { 2, 1 }, { 2, 1 }
  local n, out, tables = { 1, 1, 1 }, { 1, 1, 1 }, { { { { 1, 1 } } }, { { { 1, 1 } } } }
  for i, size in ipairs(sizes) do
    local at = 3 - dims + i
    n[at], out[at] = size, by_factor and math.floor(size * to[i]) or to[i]
    local factor = by_factor and not options.recompute_scale_factor and to[i] or nil
    tables[at] = weights(KERNEL[mode] or mode, size, out[at],
      { factor = factor, align_corners = options.align_corners })
    shape[2 + i], out_shape[2 + i] = size, out[at]
  end
  local call = { mode = mode, [by_factor and "scale_factor" or "size"] = to }
  for name, v in pairs(options) do call[name] = v end
  local x = normal(mode, shape, dtype)
  local expected = resample(values.read(x).data, 2, n, out, tables)
  local what = ("%s from %s to %s%s %s"):format(mode, table.concat(sizes, "x"), table.concat(to, "x"),
    by_factor and " by factor" or "", dtype)
  assert_values(what, lt.interpolate(x, call), out_shape, expected,
    dtype == "float32" and SINGLE or DOUBLE)
  check_adjoint(what, function(t) return lt.interpolate(t, call) end, x)
end

local TO = {
  { { 5 }, { { 1 }, { 2 }, { 5 }, { 7 }, { 10 }, { 13 } }, { { 0.5 }, { 1.1 }, { 2 }, { 2.3 } } },
  { { 1 }, { { 1 }, { 4 } }, { { 1.7 }, { 3 } } },
  { { 3, 4 }, { { 6, 8 }, { 1, 1 }, { 2, 9 }, { 3, 3 }, { 5, 4 } },
    { { 2, 2 }, { 1.5, 0.4 }, { 1.2, 1.2 } } },
  { { 2, 3, 4 }, { { 4, 6, 8 }, { 1, 5, 2 } }, { { 2, 1.4, 0.6 } } },
}

---All modes for this many dimensions, with the values of align_corners that they take.
local MODES = {
  { "nearest", "nearest-exact", "area", "linear" },
  { "nearest", "nearest-exact", "area", "bilinear", "bicubic" },
  { "nearest", "nearest-exact", "area", "trilinear" },
}

describe("interpolate", function()
  for _, case in ipairs(TO) do
    local sizes = case[1]
    it("of size " .. table.concat(sizes, "x") .. " is what plain loops say", function()
      for _, mode in ipairs(MODES[#sizes]) do
        for _, align in ipairs(KERNEL[mode] and { "none", false, true } or { "none" }) do
          local options = {}
          if align ~= "none" then options.align_corners = align end
          for k, to in ipairs(case[2]) do
            check_interpolate(mode, sizes, to, false, options, k % 2 == 0 and "float32" or "float64")
          end
          for k, factor in ipairs(case[3]) do
            check_interpolate(mode, sizes, factor, true, options,
              k % 2 == 0 and "float32" or "float64")
            options.recompute_scale_factor = true
            check_interpolate(mode, sizes, factor, true, options, "float64")
            options.recompute_scale_factor = nil
          end
        end
      end
    end)
  end

  it("of long rows is what plain loops say", function()
    for _, to in ipairs { 3, 700, 1300, 5000 } do
      check_interpolate("bilinear", { 2, 1300 }, { 3, to }, false, {}, "float64")
      check_interpolate("bicubic", { 2, 1300 }, { 1, to }, false, {}, "float32")
      check_interpolate("nearest", { 2, 1300 }, { 3, to }, false, {}, "float32")
    end
    check_interpolate("linear", { 3 }, { 9000 }, false, {}, "float64")
  end)

  it("takes the nearest element where a rounded factor would miss it", function()
    local x = lt.range(0, 1):reshape(1, 1, 2)
    local y = lt.interpolate(x, { size = 98 })
    assert.same({ 49 }, { y:sum():item() })
    assert.equal(49, lt.interpolate(x, { scale_factor = 49 }):sum():item())
  end)

  it("leaves an axis alone whose size stays", function()
    local x = lt.tensor { { { 1, math.huge, 3 } } }
    for _, align in ipairs { false, true } do
      assert.same(x:totable(), lt.interpolate(x, { scale_factor = 1.2, mode = "linear",
        align_corners = align }):totable())
    end
  end)

  it("takes empty batches", function()
    local x = lt.zeros(0, 2, 3, 3)
    local tape <close> = lt.tape()
    tape:watch(x)
    local y = lt.interpolate(x, { size = 5, mode = "bilinear" })
    assert.same({ 0, 2, 5, 5 }, y.shape)
    assert.same({ 0, 2, 3, 3 }, tape:gradient(y, x).shape)
  end)

  it("refuses what cannot be", function()
    local x = lt.ones(1, 2, 3, 3)
    local function no(words, t, o)
      refused({ "interpolate", table.unpack(words) }, lt.interpolate, t, o)
    end
    no({ "size or scale_factor", "neither" }, x, {})
    no({ "size or scale_factor", "both" }, x, { size = 2, scale_factor = 2 })
    no({ "size", "got 3" }, x, { size = { 1, 2, 3 } })
    no({ "size", "between 1" }, x, { size = 0 })
    no({ "scale_factor", "got 3" }, x, { scale_factor = { 1, 2, 3 } })
    no({ "scale_factor" }, x, { scale_factor = 0.1 })
    no({ "scale_factor" }, x, { scale_factor = -1 })
    no({ "scale_factor" }, x, { scale_factor = 0 / 0 })
    no({ "scale_factor" }, x, { scale_factor = math.huge })
    no({ "trilinear", "5 dimensions", "1x2x3x3" }, x, { size = 2, mode = "trilinear" })
    no({ "linear", "3 dimensions" }, x, { size = 2, mode = "linear" })
    no({ "bicubic", "4 dimensions" }, lt.ones(1, 2, 3), { size = 2, mode = "bicubic" })
    no({ "align_corners", "nearest" }, x, { size = 2, align_corners = false })
    no({ "recompute_scale_factor" }, x, { size = 2, recompute_scale_factor = true })
    no({ "(N, C, L)" }, lt.ones(2, 3), { size = 2 })
    no({ "dim 3", "size 0" }, lt.ones(1, 2, 0, 3), { size = 2 })
    no({ "antialias" }, x, { size = 2, antialias = true })
    no({ "float" }, x:to "int64", { size = 2 })
  end)
end)

-- ---- unfold, fold -------------------------------------------------------------------------------

---Calls f(column element, place in x) for a plane of h x w, both from 1; returns the sizes of y.
local function each_tap(h, w, o, f)
  local oh = (h + 2 * o.padding[1] - o.dilation[1] * (o.kernel_size[1] - 1) - 1) // o.stride[1] + 1
  local ow = (w + 2 * o.padding[2] - o.dilation[2] * (o.kernel_size[2] - 1) - 1) // o.stride[2] + 1
  local at = 0
  for kh = 0, o.kernel_size[1] - 1 do
    for kw = 0, o.kernel_size[2] - 1 do
      for i = 0, oh - 1 do
        for j = 0, ow - 1 do
          at = at + 1
          local r = i * o.stride[1] - o.padding[1] + kh * o.dilation[1]
          local c = j * o.stride[2] - o.padding[2] + kw * o.dilation[2]
          if f and r >= 0 and r < h and c >= 0 and c < w then f(at, r * w + c + 1) end
        end
      end
    end
  end
  return o.kernel_size[1] * o.kernel_size[2], oh * ow
end

local BLOCKS = {
  { kernel_size = { 2, 3 }, dilation = { 1, 1 }, padding = { 0, 0 }, stride = { 1, 1 } },
  { kernel_size = { 3, 2 }, dilation = { 1, 2 }, padding = { 1, 2 }, stride = { 2, 1 } },
  { kernel_size = { 2, 2 }, dilation = { 2, 1 }, padding = { 0, 3 }, stride = { 1, 3 } },
  { kernel_size = { 1, 1 }, dilation = { 1, 1 }, padding = { 2, 0 }, stride = { 3, 2 } },
  { kernel_size = { 5, 6 }, dilation = { 1, 1 }, padding = { 0, 0 }, stride = { 1, 1 } },
  { kernel_size = { 2, 2 }, dilation = { 1, 9 }, padding = { 0, 6 }, stride = { 2, 2 } },
}

describe("unfold and fold", function()
  it("are what plain loops say, and each other's adjoint", function()
    for number, o in ipairs(BLOCKS) do
      for _, dtype in ipairs { "float32", "float64" } do
        local x = normal("unfold", { 2, 3, 5, 6 }, dtype)
        local taps, blocks = each_tap(5, 6, o)
        local flat, expected, sums = values.read(x).data, {}, {}
        local y = normal("fold", { 2, 3 * taps, blocks }, dtype)
        local columns = values.read(y).data
        for plane = 0, 5 do
          local from, to = plane * 30, plane * taps * blocks
          for i = 1, taps * blocks do expected[to + i] = 0 end
          for i = 1, 30 do sums[from + i] = 0 end
          each_tap(5, 6, o, function(at, place)
            expected[to + at] = flat[from + place]
            sums[from + place] = sums[from + place] + columns[to + at]
          end)
        end
        local tol = dtype == "float32" and SINGLE or DOUBLE
        assert_values("unfold " .. number, lt.unfold(x, o), { 2, 3 * taps, blocks }, expected, tol)
        assert_values("one image " .. number, lt.unfold(x[1], o), { 3 * taps, blocks },
          table.move(expected, 1, 3 * taps * blocks, 1, {}), tol)
        local back = { output_size = { 5, 6 } }
        for name, v in pairs(o) do back[name] = v end
        assert_values("fold " .. number, lt.fold(y, back), { 2, 3, 5, 6 }, sums, tol)
        assert.same({ 3, 5, 6 }, lt.fold(y[1], back).shape)
        check_adjoint("unfold", function(t) return lt.unfold(t, o) end, x)
        check_adjoint("fold", function(t) return lt.fold(t, back) end, y)
      end
    end
  end)

  it("take PyTorch's order of arguments", function()
    local x = normal("unfold", { 1, 2, 5, 5 })
    assert.same(lt.unfold(x, { kernel_size = 2, dilation = 2, padding = 1, stride = 3 }):totable(),
      lt.unfold(x, 2, 2, 1, 3):totable())
    local y = lt.unfold(x, 2)
    assert.same({ 1, 2, 5, 5 }, lt.fold(y, 5, 2).shape)
  end)

  it("take empty batches", function()
    assert.same({ 0, 8, 9 }, lt.unfold(lt.zeros(0, 2, 4, 4), 2).shape)
    assert.same({ 0, 2, 4, 4 }, lt.fold(lt.zeros(0, 8, 9), 4, 2).shape)
  end)

  it("refuse what cannot be", function()
    local x = lt.ones(1, 2, 4, 4)
    refused({ "unfold", "larger than the image" }, lt.unfold, x, 5)
    refused({ "unfold", "kernel_size" }, lt.unfold, x, 0)
    refused({ "unfold", "stride" }, lt.unfold, x, { kernel_size = 2, stride = 0 })
    refused({ "unfold", "size 0" }, lt.unfold, lt.ones(1, 2, 0, 4), 1)
    refused({ "unfold", "(C, H, W)" }, lt.unfold, lt.ones(4, 4), 2)
    refused({ "unfold" }, lt.unfold, x, { kernel_size = 0x7fffffff, padding = 0x7fffffff })
    refused({ "fold", "multiple of 4 and 9" }, lt.fold, lt.ones(1, 8, 8), 4, 2)
    refused({ "fold", "multiple of 4 and 9" }, lt.fold, lt.ones(1, 9, 9), 4, 2)
    refused({ "fold", "(C kh kw, L)" }, lt.fold, lt.ones(9), 4, 2)
  end)
end)

-- ---- Channels -----------------------------------------------------------------------------------

describe("pixel_shuffle and pixel_unshuffle", function()
  it("move channels to pixels and back", function()
    for _, lead in ipairs { {}, { 2 }, { 2, 0 }, { 1, 2, 1 } } do
      local r, c, h, w = 3, 2, 2, 4
      local shape = { table.unpack(lead) }
      for _, n in ipairs { c * r * r, h, w } do shape[#shape + 1] = n end
      local x = normal("shuffle", shape)
      local y = lt.pixel_shuffle(x, r)
      local expected, flat = {}, values.read(x).data
      for plane = 0, #flat // (c * r * r * h * w) - 1 do
        for k = 0, c - 1 do
          for i = 0, h * r - 1 do
            for j = 0, w * r - 1 do
              local channel = plane * c * r * r + k * r * r + i % r * r + j % r
              expected[#expected + 1] = flat[(channel * h + i // r) * w + j // r + 1]
            end
          end
        end
      end
      local out = { table.unpack(lead) }
      for _, n in ipairs { c, h * r, w * r } do out[#out + 1] = n end
      assert_values("pixel_shuffle", y, out, expected)
      assert_values("pixel_unshuffle", lt.pixel_unshuffle(y, r), shape, flat)
      check_adjoint("pixel_shuffle", function(t) return lt.pixel_shuffle(t, r) end, x)
    end
    local x = lt.ones(1, 1, 1, 2, 2, 2)
    assert.same(x:totable(), lt.pixel_shuffle(x, 1):totable())
  end)

  it("refuse what does not divide", function()
    refused({ "pixel_shuffle", "upscale_factor 2", "1x6x2x2" }, lt.pixel_shuffle,
      lt.ones(1, 6, 2, 2), 2)
    refused({ "pixel_shuffle", "0" }, lt.pixel_shuffle, lt.ones(1, 6, 2, 2), 0)
    refused({ "pixel_shuffle", "3 dimensions" }, lt.pixel_shuffle, lt.ones(4, 4), 2)
    refused({ "pixel_unshuffle", "downscale_factor 2" }, lt.pixel_unshuffle, lt.ones(1, 1, 4, 3), 2)
    refused({ "pixel_unshuffle" }, lt.pixel_unshuffle, lt.ones(1, 1, 4, 4), math.maxinteger)
  end)
end)

describe("channel_shuffle", function()
  it("makes groups alternate", function()
    local x = lt.range(1, 6):reshape(1, 6, 1)
    assert.same({ { { 1 }, { 4 }, { 2 }, { 5 }, { 3 }, { 6 } } },
      lt.channel_shuffle(x, 2):totable())
    assert.same({ { { 1 }, { 3 }, { 5 }, { 2 }, { 4 }, { 6 } } },
      lt.channel_shuffle(x, 3):totable())
    assert.same({ 2, 4, 3, 2 }, lt.channel_shuffle(lt.ones(2, 4, 3, 2), 2).shape)
    refused({ "channel_shuffle", "groups 4" }, lt.channel_shuffle, x, 4)
  end)
end)

describe("local_response_norm", function()
  it("is what plain loops say", function()
    for _, size in ipairs { 1, 2, 3, 4, 9 } do
      local n, c, rest = 2, 5, 6
      local x = normal("response", { n, c, 2, 3 })
      local flat, expected = values.read(x).data, {}
      for i = 0, n - 1 do
        for k = 0, c - 1 do
          for j = 1, rest do
            local sum = 0
            for other = k - size // 2, k - size // 2 + size - 1 do
              local v = other >= 0 and other < c and flat[(i * c + other) * rest + j] or 0
              sum = sum + v * v
            end
            expected[(i * c + k) * rest + j] =
              flat[(i * c + k) * rest + j] / (2 + 0.3 * sum / size) ^ 0.6
          end
        end
      end
      assert_values("size " .. size,
        lt.local_response_norm(x, { size = size, alpha = 0.3, beta = 0.6, k = 2 }), { n, c, 2, 3 },
        expected)
    end
    refused({ "local_response_norm", "size" }, lt.local_response_norm, lt.ones(1, 2, 3), 0)
    refused({ "local_response_norm", "3 dimensions" }, lt.local_response_norm, lt.ones(2, 3), 2)
    assert.same({ 0, 3, 2 }, lt.local_response_norm(lt.ones(0, 3, 2), 2).shape)
  end)
end)

-- ---- grid_sample, affine_grid -------------------------------------------------------------------

---One image plane at one point, PyTorch's formulas.
local function at_point(pixel, h, w, x, y, o)
  local function place(g, size)
    local p = o.align_corners and (g + 1) / 2 * (size - 1) or ((g + 1) * size - 1) / 2
    if o.padding_mode == "reflection" then
      local low, high = o.align_corners and 0 or -0.5, o.align_corners and size - 1 or size - 0.5
      if low == high then return 0 end
      local span = high - low
      local away = math.abs(p - low)
      local flips, extra = away // span, math.fmod(away, span)
      p = flips % 2 == 0 and low + extra or low + span - extra
    end
    return o.padding_mode ~= "zeros" and math.max(0, math.min(size - 1, p)) or p
  end
  local px, py = place(x, w), place(y, h)
  local function get(i, j)
    return i >= 0 and i < h and j >= 0 and j < w and pixel(i, j) or 0
  end
  if o.mode == "nearest" then return get(math.floor(py + 0.5), math.floor(px + 0.5)) end
  local i, j = math.floor(py), math.floor(px)
  local b, a = py - i, px - j
  return (1 - b) * ((1 - a) * get(i, j) + a * get(i, j + 1))
    + b * ((1 - a) * get(i + 1, j) + a * get(i + 1, j + 1))
end

describe("grid_sample", function()
  it("is what plain loops say", function()
    for _, mode in ipairs { "bilinear", "nearest" } do
      for _, padding_mode in ipairs { "zeros", "border", "reflection" } do
        for _, align in ipairs { false, true } do
          for _, sizes in ipairs { { 3, 4 }, { 1, 5 }, { 1, 1 } } do
            local h, w = sizes[1], sizes[2]
            local o = { mode = mode, padding_mode = padding_mode, align_corners = align }
            local x, grid = normal("grid", { 2, 3, h, w }), normal("points", { 2, 4, 5, 2 }) * 2
            local flat, points, expected = values.read(x).data, values.read(grid).data, {}
            for n = 0, 1 do
              for c = 0, 2 do
                for point = 0, 19 do
                  local at = 2 * (n * 20 + point)
                  expected[#expected + 1] = at_point(
                    function(i, j) return flat[((n * 3 + c) * h + i) * w + j + 1] end, h, w,
                    points[at + 1], points[at + 2], o)
                end
              end
            end
            assert_values(("%s %s %s %dx%d"):format(mode, padding_mode, align, h, w),
              lt.grid_sample(x, grid, o), { 2, 3, 4, 5 }, expected)
            check_adjoint("grid_sample", function(t) return lt.grid_sample(t, grid, o) end, x)
          end
        end
      end
    end
  end)

  it("of the grid of the identity is the image", function()
    local x = normal("grid", { 2, 3, 4, 5 })
    local theta = lt.tensor({ { { 1, 0, 0 }, { 0, 1, 0 } } }, { dtype = "float64" }):expand(2, 2, 3)
    for _, align in ipairs { false, true } do
      local grid = lt.affine_grid(theta, { 2, 3, 4, 5 }, align)
      assert.same({ 2, 4, 5, 2 }, grid.shape)
      assert_values("identity", lt.grid_sample(x, grid, { align_corners = align }), { 2, 3, 4, 5 },
        values.read(x).data)
    end
  end)

  it("and affine_grid refuse what cannot be", function()
    local x, grid = lt.ones(1, 2, 3, 3), lt.zeros(1, 2, 2, 2)
    refused({ "grid_sample", "1x2x2x3" }, lt.grid_sample, x, lt.zeros(1, 2, 2, 3))
    refused({ "grid_sample" }, lt.grid_sample, x, lt.zeros(2, 2, 2, 2))
    refused({ "grid_sample" }, lt.grid_sample, x[1], grid)
    refused({ "grid_sample", "dtype" }, lt.grid_sample, x, grid:to "float64")
    refused({ "grid_sample", "pixels" }, lt.grid_sample, lt.ones(1, 2, 0, 3), grid)
    refused({ "grid_sample", "bilinear nearest" }, lt.grid_sample, x, grid, { mode = "bicubic" })
    refused({ "affine_grid", "1x3x3" }, lt.affine_grid, lt.ones(1, 3, 3), { 1, 1, 2, 2 })
    refused({ "affine_grid" }, lt.affine_grid, lt.ones(1, 2, 3), { 2, 1, 2, 2 })
    refused({ "affine_grid" }, lt.affine_grid, lt.ones(1, 2, 3), { 1, 1, 0, 2 })
    assert.same({ 0, 3, 2, 2 },
      lt.grid_sample(lt.ones(0, 3, 4, 4), lt.zeros(0, 2, 2, 2)).shape)
  end)
end)
