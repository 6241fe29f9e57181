ModelSpec(matrix=[[0, 1, 1.0, False], [0, 0, True, 0], [0, 0, 0, 1], [0, 0, 0, 0]], ops=["input", "conv3x3-bn-relu", 'maxpool3x3', "output"])
