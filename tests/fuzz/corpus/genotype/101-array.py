{'matrix': np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0]]), 'ops': ['input', 'conv1x1-bn-relu', 'output']}
