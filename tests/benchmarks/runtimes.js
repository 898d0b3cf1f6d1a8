// node runtimes.js PACKAGE MODEL FOLDER: run MODEL on the feed in FOLDER, and write its outputs there.
const fs = require('fs');
const [name, model, folder] = process.argv.slice(2);
const ort = require(name);
const ARRAYS = { int64: BigInt64Array, float32: Float32Array };

(async () => {
  const source = name.endsWith('web') ? new Uint8Array(fs.readFileSync(model)) : model;
  const session = await ort.InferenceSession.create(source, { logSeverityLevel: 4 });
  const feed = {};
  for (const { file, input, type, dims } of JSON.parse(fs.readFileSync(`${folder}/feed.json`))) {
    const bytes = fs.readFileSync(`${folder}/${file}`);
    const data = new ARRAYS[type](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
    feed[input] = new ort.Tensor(type, data, dims);
  }
  const found = await session.run(feed);
  session.outputNames.forEach((output, index) => {
    const { data } = found[output];
    fs.writeFileSync(`${folder}/output${index}.bin`, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  });
})().catch((failure) => {
  console.error(String(failure).split('\n')[0]);
  process.exit(1);
});
