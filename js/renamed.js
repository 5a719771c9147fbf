// Workflows that were saved with an older name of an input: the link moves to its present name as the workflow opens.
import { app } from "../../scripts/app.js";

// Node type to {older name: present name}; the node itself understands the older ones too (API workflows).
const RENAMED = {
  LumiereConditionBuilder: {
    "task.start_image": "task.images",
    "task.video": "task.images",
    "task.image": "task.images",
  },
};

function rename(graph) {
  for (const node of graph?.nodes ?? []) {
    const names = RENAMED[node.type];
    if (!names) continue;
    for (const input of node.inputs ?? []) {
      if (!(input.name in names)) continue;
      input.name = names[input.name];
      input.localized_name = input.name;
    }
  }
}

app.registerExtension({
  name: "Lumiere.Renamed",
  beforeConfigureGraph(graph) {
    rename(graph);
    for (const subgraph of graph?.definitions?.subgraphs ?? []) rename(subgraph);
  },
});
