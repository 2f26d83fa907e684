--- The pages of the reference, in their order: the one place that says what stands where. A family
--- of ops (a file of src/ops) or a function that is on no page is an error of scripts/reference.

---@class luatape.help.page
---@field name string of the file
---@field title string
---@field about string what the page is about, one line
---@field families string? of ops
---@field functions string? of the class luatape, by name
---@field classes string? with those below them: "luatape.nn" has luatape.nn.Linear too

---@type luatape.help.page[]
return {
  {
    name = "tensor", title = "Tensors", classes = "luatape.tensor",
    functions = "tensor variable is_tensor allclose",
    about = "Making, reading and writing tensors and variables.",
  },
  {
    name = "tape", title = "The tape",
    classes = "luatape.tape luatape.gradients luatape.why luatape.lint",
    functions = "tape record no_grad custom_gradient lint",
    about = "Recording, gradients, and why there is none.",
  },
  {
    name = "transforms", title = "Transforms of functions",
    functions = "grad value_and_grad vjp jvp jacobian hessian hvp vmap checkpoint gradcheck",
    about = "Derivatives of every kind, batching, less memory, checking.",
  },
  {
    name = "creation", title = "Creating and copying", families = "source random cast",
    about = "Tensors of constants, ranges and random numbers; copies and conversions.",
  },
  {
    name = "arithmetic", title = "Arithmetic", families = "arithmetic power binary",
    about = "Of two tensors and more, element by element with broadcasting.",
  },
  {
    name = "comparison", title = "Comparing and choosing", families = "compare choose",
    about = "Bool tensors, and elements chosen by them.",
  },
  {
    name = "elementwise", title = "Elementwise functions", families = "unary round special",
    about = "Of one tensor, element by element: powers, logarithms, angles, rounding, special functions.",
  },
  {
    name = "activation", title = "Activations and dropout",
    families = "activation gated softmax dropout",
    about = "What stands between the layers of a network.",
  },
  {
    name = "reduction", title = "Reductions", families = "reduce statistics extremum",
    about = "Sums, means, spreads, norms and extrema over dimensions.",
  },
  {
    name = "order", title = "Scans, order and sets", families = "scan order sets difference",
    about = "Running sums, sorting, searching, counting.",
  },
  {
    name = "shape", title = "Shapes", families = "view rearrange join pad",
    functions = "split chunk tensor_split unbind broadcast_tensors meshgrid",
    about = "Views and copies in other shapes; joining, splitting, padding.",
  },
  {
    name = "indexing", title = "Indexing, gathering and scattering",
    families = "slice index gather scatter embedding",
    about = "Elements by their places, which count from 1.",
  },
  {
    name = "product", title = "Products", families = "matmul product einsum",
    about = "Of matrices, vectors and tensors.",
  },
  {
    name = "linalg", title = "Linear algebra", families = "linalg decompose triangle",
    about = "Solving, decompositions, triangles and diagonals.",
  },
  {
    name = "convolution", title = "Convolution", families = "conv conv_transpose",
    about = "And transposed convolution, over one to three dimensions.",
  },
  {
    name = "pooling", title = "Pooling and images",
    families = "pool adaptive_pool interpolate image grid",
    about = "Windows of images: pooling, resampling, patches, shuffles.",
  },
  {
    name = "normalization", title = "Normalization and similarity",
    families = "norm batch_norm similarity",
    about = "Of layers, groups, batches and vectors.",
  },
  {
    name = "attention", title = "Attention", families = "attention multi_head_attention",
    about = "Scaled products of queries and keys.",
  },
  {
    name = "recurrent", title = "Recurrent networks", families = "recurrent cells",
    about = "Whole sequences, and single steps.",
  },
  {
    name = "loss", title = "Losses", families = "pointwise_loss margin_loss cross_entropy ctc",
    about = "Of predictions and targets; all take a reduction.",
  },
  {
    name = "nn", title = "Modules", classes = "luatape.nn",
    about = "Layers with parameters, and what every module can.",
  },
  {
    name = "optim", title = "Optimizers", classes = "luatape.optim luatape.optimizer",
    about = "Update rules, schedules, clipping, and what every optimizer can.",
  },
  {
    name = "data", title = "Data", classes = "luatape.data",
    about = "Files of numbers, splits, batches, progress.",
  },
  {
    name = "engine", title = "The engine",
    functions = [[manual_seed set_default_dtype get_default_dtype set_num_threads num_threads memory
                  set_history version help]],
    about = "Random numbers, threads, memory, versions.",
  },
}
