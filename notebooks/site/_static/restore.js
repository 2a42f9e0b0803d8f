// SeRP-Transformer restores a cloud, as serplib/patches.py and transformer.py do; a test compares the
// two. Weights are those of a safetensors file of 16-bit floats; computed with 64 bits. A matrix is
// the Float64Array of its rows, one after the other; the weights know how long a row is.
"use strict";

// The model in the base64 text of a file: maps a cloud of [x, y, z] to the restored cloud.
function serpModel(text) {
  const { weights, settings } = read(text);
  const { num_centers: count, patch_size: size, encoder_heads, decoder_heads } = settings;

  function read(text) {
    const letters = atob(text), bytes = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
    const view = new DataView(bytes.buffer), start = 8 + view.getUint32(0, true);
    const { __metadata__: about, ...entries } =
      JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
    const weights = {}, settings = {};
    for (const [name, { dtype, data_offsets: [from, to] }] of Object.entries(entries)) {
      if (dtype != "F16") continue; // how many batches a BatchNorm has seen
      weights[name] = new Float64Array((to - from) / 2);
      for (let i = 0; i < weights[name].length; i++) {
        weights[name][i] = half(view.getUint16(start + from + 2 * i, true));
      }
    }
    for (const [name, value] of Object.entries(JSON.parse(about.settings))) {
      if (name.startsWith("config.")) settings[name.slice(7)] = value;
    }
    return { weights, settings };
  }

  function half(bits) {
    const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    return sign * (exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24);
  }

  // ---- layers, by the name of their weights

  function linear(x, name) {
    const weight = weights[`${name}.weight`], bias = weights[`${name}.bias`], outer = bias.length;
    const inner = weight.length / outer, y = new Float64Array((x.length / inner) * outer);
    for (let row = 0, place = 0; row < x.length; row += inner) {
      for (let o = 0; o < outer; o += 4, place += 4) { // four at once, which is faster
        const one = o * inner, two = one + inner, three = two + inner, four = three + inner;
        let a = bias[o], b = bias[o + 1], c = bias[o + 2], d = bias[o + 3];
        for (let i = 0; i < inner; i++) {
          const value = x[row + i];
          a += value * weight[one + i];
          b += value * weight[two + i];
          c += value * weight[three + i];
          d += value * weight[four + i];
        }
        y[place] = a;
        y[place + 1] = b;
        y[place + 2] = c;
        y[place + 3] = d;
      }
    }
    return y;
  }

  function layerNorm(x, name) {
    const gain = weights[`${name}.weight`], bias = weights[`${name}.bias`], width = gain.length;
    const y = new Float64Array(x.length);
    for (let row = 0; row < x.length; row += width) {
      const one = x.subarray(row, row + width), [mean, variance] = moments(one);
      for (let i = 0; i < width; i++) {
        y[row + i] = ((one[i] - mean) / Math.sqrt(variance + 1e-5)) * gain[i] + bias[i];
      }
    }
    return y;
  }

  function moments(values) {
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    return [mean, squares / values.length];
  }

  // BatchNorm with the statistics of the training, and ReLU.
  function batchNorm(x, name) {
    const [gain, bias, mean, variance] = ["weight", "bias", "running_mean", "running_var"]
      .map((part) => weights[`${name}.${part}`]);
    return x.map((value, place) => {
      const i = place % gain.length;
      const normal = (value - mean[i]) / Math.sqrt(variance[i] + 1e-5);
      return Math.max(0, normal * gain[i] + bias[i]);
    });
  }

  // x times the normal distribution function (Abramowitz and Stegun 7.1.26, error below 1e-7).
  function gelu(x) {
    const z = Math.abs(x) / Math.SQRT2, t = 1 / (1 + 0.3275911 * z);
    const series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 +
      t * (-1.453152027 + t * 1.061405429))));
    const tail = (series * Math.exp(-z * z)) / 2;
    return x * (x < 0 ? tail : 1 - tail);
  }

  function attention(x, name, heads) {
    const qkv = linear(x, `${name}.qkv`), width = weights[`${name}.out.bias`].length;
    const tokens = x.length / width, each = width / heads, mixed = new Float64Array(x.length);
    for (let head = 0; head < width; head += each) {
      for (let t = 0; t < tokens; t++) {
        const scores = new Float64Array(tokens);
        for (let s = 0; s < tokens; s++) {
          const query = 3 * width * t + head, key = 3 * width * s + width + head;
          for (let i = 0; i < each; i++) scores[s] += qkv[query + i] * qkv[key + i];
        }
        const most = Math.max(...scores);
        const shares = scores.map((score) => Math.exp((score - most) / Math.sqrt(each)));
        const total = shares.reduce((sum, share) => sum + share, 0);
        for (let s = 0; s < tokens; s++) {
          const value = 3 * width * s + 2 * width + head;
          for (let i = 0; i < each; i++) {
            mixed[width * t + head + i] += (shares[s] / total) * qkv[value + i];
          }
        }
      }
    }
    return linear(mixed, `${name}.out`);
  }

  const add = (x, y) => x.map((value, i) => value + y[i]);

  function block(x, name, heads) {
    x = add(x, attention(layerNorm(x, `${name}.norm1`), `${name}.attention`, heads));
    const hidden = linear(layerNorm(x, `${name}.norm2`), `${name}.mlp.0`).map(gelu);
    return add(x, linear(hidden, `${name}.mlp.2`));
  }

  // The largest of each column in groups of `size` rows.
  function maxima(x, width) {
    const most = new Float64Array(x.length / size).fill(-Infinity);
    x.forEach((value, place) => {
      const at = width * Math.floor(place / (width * size)) + (place % width);
      if (value > most[at]) most[at] = value;
    });
    return most;
  }

  // Rows of a beside rows of b; where b has more rows, each row of a serves for several.
  function join(a, b, widthA, widthB) {
    const rows = b.length / widthB, shared = rows / (a.length / widthA), width = widthA + widthB;
    const y = new Float64Array(rows * width);
    for (let row = 0; row < rows; row++) {
      const from = widthA * Math.floor(row / shared);
      y.set(a.subarray(from, from + widthA), row * width);
      y.set(b.subarray(row * widthB, (row + 1) * widthB), row * width + widthA);
    }
    return y;
  }

  // ---- the network

  function token(inputs) { // (c * n, 3) to (c, d), Eq. 4
    const name = "encoder.embedding.token", width = weights[`${name}.local.bias`].length;
    const first = batchNorm(linear(inputs, `${name}.first`), `${name}.first_norm`);
    const local = linear(first, `${name}.local`);
    const joined = join(maxima(local, width), local, width, width);
    const wide = batchNorm(linear(joined, `${name}.wide`), `${name}.wide_norm`);
    return maxima(linear(wide, `${name}.last`), weights[`${name}.last.bias`].length);
  }

  const stack = (...parts) => Float64Array.from(parts.flatMap((part) => [...part]));

  return function restore(cloud) {
    const members = serp.patches(cloud, count, size);
    const patches = members.map((patch) => patch.map((i) => cloud[i]));
    const frames = patches.map((patch) => {
      const origin = [0, 1, 2].map((axis) => moments(patch.map((p) => p[axis]))[0]);
      const centred = patch.flatMap((p) => p.map((value, axis) => value - origin[axis]));
      const squares = centred.reduce((sum, value) => sum + value * value, 0);
      return { origin, unit: Math.max(Math.sqrt(squares / centred.length), 1e-6) };
    });
    const inputs = stack(...patches.map((patch, i) => patch.flatMap((p) =>
      p.map((value, axis) => (value - frames[i].origin[axis]) / frames[i].unit))));
    const centers = stack(...members.map(([nearest]) => cloud[nearest])); // nearest to themselves

    const { dim } = settings, name = "encoder.embedding", position = `${name}.position`;
    const places = linear(linear(centers, `${position}.0`).map(gelu), `${position}.2`);
    const tokens = stack(weights[`${name}.cls`], token(inputs)); // (c + 1, d)
    let x = join(tokens, stack(weights[`${name}.cls_position`], places), dim, dim); // (c + 1, 2d)
    for (let i = 0; i < settings.encoder_depth; i++) {
      x = block(x, `encoder.blocks.${i}`, encoder_heads);
    }
    x = linear(layerNorm(x, "encoder.norm"), "decoder.from_latent"); // (c + 1, d)
    for (let i = 0; i < settings.decoder_depth; i++) {
      x = block(x, `decoder.blocks.${i}`, decoder_heads);
    }
    const flat = linear(layerNorm(x, "decoder.norm").subarray(dim), "decoder.head"); // (c, 3n)
    const inCloud = settings.target_frame == "cloud";
    return frames.flatMap(({ origin, unit }, i) => patches[i].map((_, j) =>
      [0, 1, 2].map((axis) => {
        const value = flat[3 * (size * i + j) + axis];
        return inCloud ? value : value * unit + origin[axis];
      })));
  };
}
