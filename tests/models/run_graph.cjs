// Runs a TF.js graph model on the CPU: node run_graph.cjs MODEL.json NODE INPUT SHAPE OUTPUT (raw little-endian float32).
const fs = require("fs");
const path = require("path");
const tf = require("@tensorflow/tfjs-core");
const { loadGraphModel } = require("@tensorflow/tfjs-converter");
require("@tensorflow/tfjs-backend-cpu");

async function main([model, node, input, shape, output]) {
  const document = JSON.parse(fs.readFileSync(model));
  const [group] = document.weightsManifest;
  const weights = Buffer.concat(group.paths.map((shard) => fs.readFileSync(path.join(path.dirname(model), shard))));
  const bytes = (buffer) => buffer.buffer.slice(buffer.byteOffset, buffer.byteOffset + buffer.length);
  await tf.setBackend("cpu");
  const graph = await loadGraphModel(
    tf.io.fromMemory({
      modelTopology: document.modelTopology,
      format: document.format,
      weightSpecs: group.weights,
      weightData: bytes(weights),
    }),
  );
  const images = tf.tensor(new Float32Array(bytes(fs.readFileSync(input))), shape.split(",").map(Number));
  const result = graph.execute(images, node);
  fs.writeFileSync(output, Buffer.from((await result.data()).buffer));
  console.log(result.shape.join(","));
}

main(process.argv.slice(2));
